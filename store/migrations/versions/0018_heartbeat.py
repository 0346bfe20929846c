"""A table for signs of life, so that processes learn whether the database takes writes."""

from alembic import op

revision = "0018"
down_revision = "0017"

# The rows are updated for ever: room in each page keeps the new version beside the old one, and the index as it is.
_HEARTBEAT = """
CREATE TABLE heartbeat (
    slot smallint PRIMARY KEY,
    beat_time timestamptz NOT NULL
) WITH (fillfactor = 50);
"""


def upgrade() -> None:
    """Adds the table."""
    op.execute(_HEARTBEAT)
