"""Alembic's entry point: runs the migrations on the connection that `store.migrate` holds."""

from typing import Any

from alembic import context
from sqlalchemy import update

from store.tables import metadata
from store.tables.schema import schema_compatibility


def _note_compatibility(ctx: Any, step: Any, heads: Any, run_args: Any) -> None:
    """Stores, in the migration's own transaction, which revision's code can still run on the result."""
    oldest = getattr(step.up_revision.module, "oldest_compatible", None)
    if oldest is not None:
        ctx.connection.execute(update(schema_compatibility).values(oldest_revision=oldest))


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    transaction_per_migration=True,
    on_version_apply=_note_compatibility,
)
with context.begin_transaction():
    context.run_migrations()
