"""Tests of the gRPC server over real channels and a real database."""
