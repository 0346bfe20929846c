"""The command `tidemark doctor`."""
