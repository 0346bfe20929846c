"""What a table needs before and after it moves to its place: keys with the customer, and numbers that go on.

Citus accepts a primary key only with the distribution column in it, so some tables get another one
(`lies(…, key=…)`). It creates the sequence of an identity column anew when a table gets into its metadata; without
`continue_numbers`, new rows would get the numbers of old ones.
"""

from sqlalchemy import Connection, Table, text

from store.tables.placement import distributed_key_of


def replace_key(connection: Connection, table: Table) -> None:
    """Gives a table that is about to be distributed the key that it has there. Nothing else may use the table."""
    key = distributed_key_of(table)
    if not key:
        return
    connection.execute(text(f"ALTER TABLE {table.name} DROP CONSTRAINT IF EXISTS {table.name}_pkey"))
    connection.execute(
        text(f"ALTER TABLE {table.name} ADD CONSTRAINT {table.name}_pkey PRIMARY KEY ({', '.join(key)})")
    )


def take_back(connection: Connection, table: Table) -> None:
    """Replaces a table in the metadata by one that Citus does not know, with the same rows.

    Citus itself does that only for tables without an identity column.
    """
    name, columns = table.name, ", ".join(column.name for column in table.columns)
    connection.execute(text(f"CREATE TABLE {name}_taken_back (LIKE {name} INCLUDING DEFAULTS INCLUDING IDENTITY)"))
    connection.execute(
        text(f"INSERT INTO {name}_taken_back ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {name}")
    )
    connection.execute(text(f"DROP TABLE {name}"))
    connection.execute(text(f"ALTER TABLE {name}_taken_back RENAME TO {name}"))
    continue_numbers(connection, table)


def continue_numbers(connection: Connection, table: Table) -> None:
    """Lets the numbers of an identity column go on after those that the table has."""
    for column in table.columns:
        if column.identity is None:
            continue
        connection.execute(
            text(
                f"SELECT setval(numbers, last) FROM (SELECT max({column.name}) AS last FROM {table.name}) AS present,"
                f" pg_get_serial_sequence('{table.name}', '{column.name}') AS numbers"
                " WHERE last >= coalesce(pg_sequence_last_value(CAST(numbers AS regclass)), 0)"
            )
        )
