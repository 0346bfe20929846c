"""Tests of the server parts that need neither a database nor a socket."""
