"""A plain model of the domain, to compare the product with."""
