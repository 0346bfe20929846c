"""What a caller reads about the alerts of customers."""
