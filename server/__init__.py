"""gRPC: handlers that map proto ↔ domain, interceptors, the ingest pipeline, lifecycle."""
