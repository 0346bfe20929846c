"""Facts of customers: changes of what the billing system posts, evaluated in the transaction that stores them."""
