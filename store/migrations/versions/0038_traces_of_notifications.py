"""Notifications and operator events get the trace of what caused them, which their webhooks continue.

The columns have a constant default, so no row is written and each table is locked for a moment only. A server of the
previous version writes none; a notifier of that version reads none.
"""

from alembic import op

revision = "0038"
down_revision = "0037"
oldest_compatible = "0027"


def upgrade() -> None:
    """Adds the columns."""
    for table in ("notification", "operator_event"):
        op.execute(f"ALTER TABLE {table} ADD COLUMN trace_context text NOT NULL DEFAULT ''")
