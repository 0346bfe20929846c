"""gRPC only: the process, its interceptors, and the handlers. `server.services` shows which class serves an RPC."""
