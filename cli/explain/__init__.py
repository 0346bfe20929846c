"""The command `tidemark explain`."""
