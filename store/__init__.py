"""PostgreSQL: tables, migrations, every SQL statement, and the embedded server."""
