"""`tidemark replay`, without a server."""
