"""Tests of what the HTTP port reads and writes, without a socket."""
