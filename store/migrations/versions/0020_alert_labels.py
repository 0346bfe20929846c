"""Alerts have labels, with an index by which lists are filtered."""

from alembic import op

revision = "0020"
down_revision = "0019"
oldest_compatible = "0019"

# A default that is a constant rewrites nothing, and a server of the version before leaves it as it is.
_COLUMN = "ALTER TABLE alert ADD COLUMN IF NOT EXISTS labels jsonb NOT NULL DEFAULT '{}'"

# One that was cut off while it was built is there already, and of no use.
_DROP = "DROP INDEX CONCURRENTLY IF EXISTS alert_by_label"

# Built while servers of the version before go on writing. An alert without labels has no entry in it.
_INDEX = "CREATE INDEX CONCURRENTLY alert_by_label ON alert USING gin (labels jsonb_path_ops)"


def upgrade() -> None:
    """Adds the column, then the index."""
    with op.get_context().autocommit_block():
        op.execute(_COLUMN)
        op.execute(_DROP)
        op.execute(_INDEX)
