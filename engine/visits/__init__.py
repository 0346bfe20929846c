"""Visits: alerts are evaluated on what existed before them."""
