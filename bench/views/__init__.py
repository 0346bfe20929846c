"""views: what lists and views cost, by the number of rows that they choose from."""
