"""Which versions of Tidemark can run on the schema."""

from sqlalchemy import Boolean, Column, Table

from store.tables.base import Identifier, metadata
from store.tables.placement import COORDINATOR_ALONE, lies

# Has one row. Alembic's table stores the last migration.
schema_compatibility = Table(
    "schema_compatibility",
    metadata,
    Column("only_row", Boolean, primary_key=True),
    Column("oldest_revision", Identifier, nullable=False),  # the oldest revision whose code still runs on the schema
    info=lies(COORDINATOR_ALONE),
)
