"""`tidemark watch`: the alert states of customers, live."""
