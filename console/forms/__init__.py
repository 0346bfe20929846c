"""Forms that are made from the descriptors of the contract, and the messages that they post."""
