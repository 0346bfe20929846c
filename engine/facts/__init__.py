"""What follows from a change of facts: customers, subscriptions, plans, limits, balances, invoices."""
