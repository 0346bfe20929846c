"""Limits get an enforcement and a window, customers a parent.

The columns have constant defaults or none, so no row is written and each table is locked for a moment only. A server
of the previous version writes limits without enforcement, and keeps what is stored where it changes one. It takes a
limit of another window than the billing period as one of the billing period: put such limits after all servers are of
this version.
"""

from alembic import op

revision = "0039"
down_revision = "0038"
oldest_compatible = "0027"

_INDEXES = {
    "customer_of_parent": (
        "customer (organization_id, parent_customer_id, customer_id) WHERE parent_customer_id IS NOT NULL"
    ),
}


def upgrade() -> None:
    """Adds the columns, and the index of the customers below a customer."""
    op.execute(
        """
        ALTER TABLE usage_limit
            ADD COLUMN IF NOT EXISTS enforcement text COLLATE "C" NOT NULL DEFAULT 'NONE',
            ADD COLUMN IF NOT EXISTS window_kind text COLLATE "C",
            ADD COLUMN IF NOT EXISTS window_minutes integer;
        ALTER TABLE customer ADD COLUMN IF NOT EXISTS parent_customer_id text COLLATE "C"
        """
    )
    with op.get_context().autocommit_block():
        for name, definition in _INDEXES.items():
            # One that was cut off while it was built is there already, and of no use.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {definition}")
