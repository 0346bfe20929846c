"""Tests of the HTTP port: in front of a server that only notes what it gets, and in front of real ones."""
