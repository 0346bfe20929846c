"""Settings of roles and databases that would change what the product's statements do."""

import psycopg
from sqlalchemy import make_url

# An adverse value of each pinned setting, which does not make the statement fail that sets them.
ADVERSE = {
    "default_transaction_isolation": "repeatable read",
    "default_transaction_deferrable": "on",
    "transform_null_equals": "on",
    "row_security": "off",
    "client_encoding": "LATIN1",
    "TimeZone": "Asia/Kathmandu",
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "quote_all_identifiers": "on",
    "statement_timeout": "20s",
    "transaction_timeout": "30s",
    "idle_session_timeout": "30s",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "1h",
    "jit": "on",
    "plan_cache_mode": "force_generic_plan",
    "synchronous_commit": "off",
}


async def make_adverse(url: str) -> None:
    """Gives half of the settings to the database, and half to the role in that database."""
    database = make_url(url).database
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        known = await connection.execute("SELECT name FROM pg_settings")
        names = {str(row[0]) for row in await known.fetchall()}
        for number, (name, value) in enumerate(ADVERSE.items()):
            if name not in names:  # of a newer PostgreSQL
                continue
            whose = f'DATABASE "{database}"' if number % 2 else f'ROLE CURRENT_USER IN DATABASE "{database}"'
            setting = ", ".join(f"'{part.strip()}'" for part in value.split(","))
            await connection.execute(f'ALTER {whose} SET "{name}" = {setting}'.encode())


async def make_ordinary(url: str) -> None:
    """Takes the settings away again, for the sessions that follow."""
    database = make_url(url).database
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(f'ALTER DATABASE "{database}" RESET ALL'.encode())
        await connection.execute(f'ALTER ROLE CURRENT_USER IN DATABASE "{database}" RESET ALL'.encode())
