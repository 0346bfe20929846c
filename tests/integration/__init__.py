"""Ring 2: the rooms against a real PostgreSQL, a fresh database for each test."""
