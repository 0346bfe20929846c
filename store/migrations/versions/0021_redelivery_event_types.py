"""A redelivery job selects deliveries of several event types.

A version before this one knows event_type alone, which stays beside event_types: it is set when a job has exactly one
type. So an older version that continues a job sends at most more than was selected, and never less.
"""

from alembic import op

revision = "0021"
down_revision = "0019"
oldest_compatible = "0019"


def upgrade() -> None:
    """Adds the column."""
    op.execute("ALTER TABLE redelivery_job ADD COLUMN event_types text[] COLLATE \"C\" NOT NULL DEFAULT '{}'")
