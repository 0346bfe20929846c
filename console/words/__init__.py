"""Numbers, times and the names of the contract, as people read them."""
