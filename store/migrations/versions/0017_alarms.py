"""States know when their period ends, and those in alarm have an index by it."""

from alembic import op

revision = "0017"
down_revision = "0014"

# A default that is a constant rewrites nothing. A server of the version before leaves it as it is: such a state is
# compared with its gauge instead, and gets its time from upkeep, or when it is next written.
_COLUMN = "ALTER TABLE alert_state ADD COLUMN IF NOT EXISTS period_end timestamptz NOT NULL DEFAULT 'infinity'"

# One that was cut off while it was built is there already, and of no use.
_DROP = "DROP INDEX CONCURRENTLY IF EXISTS alert_state_in_alarm"

# Built while servers of the version before go on writing.
_INDEX = """
CREATE INDEX CONCURRENTLY alert_state_in_alarm
ON alert_state (organization_id, period_end, change_time, customer_id, gauge_id, alert_id)
WHERE reached <> '{}'::jsonb
"""


def upgrade() -> None:
    """Adds the column, then the index."""
    with op.get_context().autocommit_block():
        op.execute(_COLUMN)
        op.execute(_DROP)
        op.execute(_INDEX)
