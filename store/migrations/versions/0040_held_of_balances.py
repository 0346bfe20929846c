"""Segments of balances, and overages below zero, get the amount that open reservations hold of them.

The columns have a constant default, so no row is written and each table is locked for a moment only. A server of the
previous version makes no reservations, and leaves what others hold as it is: usage that it stores can draw on it.
"""

from alembic import op

revision = "0040"
down_revision = "0039"
oldest_compatible = "0027"


def upgrade() -> None:
    """Adds the columns."""
    for table in ("balance_segment", "overage"):
        op.execute(f"ALTER TABLE {table} ADD COLUMN held numeric NOT NULL DEFAULT 0")
