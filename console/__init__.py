"""The console: server-rendered pages over the gRPC API. It is a client of the API and has no other access to data."""
