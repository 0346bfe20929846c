"""About the command itself: `tidemark version` and `tidemark completion`."""
