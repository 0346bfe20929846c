"""Tests of store/postgres and the migrations: connections, failures, sessions, schema."""
