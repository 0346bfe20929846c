"""Whether the tables of customers are distributed over the workers of a Citus cluster.

Nothing has to ask: each statement of Tidemark is right on one PostgreSQL and on a cluster. Where the fastest form
differs, the code asks once at its start and chooses. A process that chose before the tables were distributed is
slower than it could be, and not wrong.
"""

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.tables.placement import ANCHOR

# The catalogue of Citus exists only where its extension was created, and a statement that names it fails elsewhere.
_HAS_CITUS = text("SELECT to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL")
_IS_DISTRIBUTED = text(
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_dist_partition"
    f" WHERE logicalrelid = to_regclass('{ANCHOR}') AND partmethod = 'h')"
)


def has_citus(connection: Connection) -> bool:
    """Whether the database has the extension Citus."""
    return bool(connection.scalar(_HAS_CITUS))


def detect(connection: Connection) -> bool:
    """Whether the tables of customers are distributed."""
    return has_citus(connection) and bool(connection.scalar(_IS_DISTRIBUTED))


async def is_distributed(connection: AsyncConnection) -> bool:
    """As `detect`, on a connection of the pool."""
    return bool(await connection.scalar(_HAS_CITUS)) and bool(await connection.scalar(_IS_DISTRIBUTED))
