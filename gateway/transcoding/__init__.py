"""Messages from JSON, paths and queries, and messages as JSON, by the descriptors of the contract."""
