"""The schema: which migration was the last, and which are missing."""

from dataclasses import dataclass

from store.migrate import known_revisions
from store.postgres.database import DriverConnection


@dataclass(frozen=True)
class SchemaState:
    """The revision of the last migration (None: there was none), and the ones that this version would apply.

    oldest_revision: the oldest version that can run on the schema; None where the schema does not say it.
    """

    revision: str | None
    head: str
    pending: tuple[str, ...]
    oldest_revision: str | None

    @property
    def is_newer(self) -> bool:
        """Whether a newer version migrated the schema."""
        return self.revision is not None and self.revision > self.head

    @property
    def is_usable(self) -> bool:
        """Whether this version can run on a schema that a newer version migrated."""
        return self.oldest_revision is not None and self.oldest_revision <= self.head


async def schema_state(connection: DriverConnection) -> SchemaState:
    """The state of the schema of the database."""
    revision = await _only(connection, "alembic_version", "version_num")
    oldest = await _only(connection, "schema_compatibility", "oldest_revision")
    known = sorted(known_revisions())
    pending = tuple(one for one in known if revision is None or one > revision)
    return SchemaState(revision, known[-1], pending, oldest)


async def _only(connection: DriverConnection, table: str, column: str) -> str | None:
    """A column of the only row of a table; None if the table does not exist."""
    exists = await (await connection.execute("SELECT to_regclass(%s)", (table,))).fetchone()
    if exists is None or exists[0] is None:
        return None
    row = await (await connection.execute(f"SELECT {column}::text FROM {table}".encode())).fetchone()
    return None if row is None else row[0]
