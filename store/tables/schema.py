"""What versions of Tidemark can run on the schema."""

from sqlalchemy import Boolean, Column, Table

from store.tables.base import Identifier, metadata

# One row. Alembic's own table says which migration was the last.
schema_compatibility = Table(
    "schema_compatibility",
    metadata,
    Column("only_row", Boolean, primary_key=True),
    Column("oldest_revision", Identifier, nullable=False),  # the oldest revision whose code still runs on the schema
)
