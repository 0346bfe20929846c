"""The two forms of the key that a partition of events can have, and the number of its sequential reads."""

import psycopg

_PARTITIONS = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'event'::regclass ORDER BY 1"


async def use_key_of_texts(database_url: str) -> None:
    """Gives all partitions the key that those have which had events before migration 0033."""
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        for (name,) in await (await connection.execute(_PARTITIONS)).fetchall():
            await connection.execute(f"DROP INDEX {name}_key".encode())
            await connection.execute(
                f"ALTER TABLE {name} ADD PRIMARY KEY (organization_id, customer_id, event_id)".encode()
            )


async def key_definitions(connection: psycopg.AsyncConnection[tuple[object, ...]]) -> dict[str, str]:
    """The columns of the unique index of each partition."""
    cursor = await connection.execute(
        f"SELECT p.name, pg_get_indexdef(x.indexrelid) FROM ({_PARTITIONS}) AS p (name)"
        " JOIN pg_index x ON x.indrelid = p.name::regclass AND x.indisunique".encode()
    )
    return {str(name): str(definition).partition(" USING ")[2] for name, definition in await cursor.fetchall()}
