"""Limits and customers say since when what they count has been counted without a gap.

A change of a limit's amount, or from SOFT to HARD, then needs no recount of its meters, and a new window begins at
zero. The columns have no default, so no row is written and each table is locked for a moment only. Where they are
unset, and where a server of the previous version has changed the limit since (`enforced_as_of` is another epoch than
`changed_epoch`), the last change of the row counts.
"""

from alembic import op

revision = "0044"
down_revision = "0043"
oldest_compatible = "0027"


def upgrade() -> None:
    """Adds the columns."""
    op.execute(
        """
        ALTER TABLE usage_limit
            ADD COLUMN IF NOT EXISTS enforced_epoch bigint,
            ADD COLUMN IF NOT EXISTS enforced_time timestamptz,
            ADD COLUMN IF NOT EXISTS enforced_as_of bigint;
        ALTER TABLE customer ADD COLUMN IF NOT EXISTS below_change_time timestamptz
        """
    )
