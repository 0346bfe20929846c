"""Tests of the history of notifications and of the watch stream, over gRPC and against a real PostgreSQL."""
