"""What routers read: wide alerts; customers with their own alerts, limits and facts; and what changed of these."""
