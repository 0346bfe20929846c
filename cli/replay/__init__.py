"""`tidemark replay`: a file of usage events, streamed to the server."""
