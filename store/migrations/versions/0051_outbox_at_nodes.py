"""What a cluster needs to have `outbox` and `feed_pending` at the nodes of customers.

`sequence` orders the rows of `feed_pending` there, and `fan_out` has one row that each fan-out changes. On one
PostgreSQL neither is used. The keys of both tables change only where they are distributed.
"""

from alembic import op

revision = "0051"
down_revision = "0050"
oldest_compatible = "0027"


def upgrade() -> None:
    """Adds the column, which rewrites no row, and the table."""
    op.execute("ALTER TABLE feed_pending ADD COLUMN sequence bigint NOT NULL DEFAULT 0")
    op.execute("CREATE TABLE fan_out (fan_out_id bigint PRIMARY KEY, fan_outs bigint NOT NULL)")
