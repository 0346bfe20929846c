"""Calls to the server behind the HTTP port: who makes them, their channels, and what their errors become."""
