"""Gauges remember which event LATEST shows: of events of one time the one with the greatest id counts."""

from alembic import op

revision = "0013"
down_revision = "0012"

# With the event's time in front: servers of the version before go on writing latest_event_time alone, and what is not
# of that time is known to be out of date. Without a value it is found out when a tie comes.
_SINCE_THEN = 'ALTER TABLE gauge ADD COLUMN latest_event text COLLATE "C"'


def upgrade() -> None:
    """Adds the column; the table is not rewritten."""
    op.execute(_SINCE_THEN)
