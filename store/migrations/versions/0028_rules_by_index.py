"""Rules by index: wide alerts, and metrics, that changed since an epoch are found by index."""

from alembic import op

revision = "0028"
down_revision = "0027"
oldest_compatible = "0027"

# Built while servers of the version before go on writing.
_INDEXES = {
    "alert_wide_by_change": "alert (organization_id, changed_epoch) WHERE customer_id IS NULL",
    "metric_by_change": "metric (organization_id, changed_epoch)",
}


def upgrade() -> None:
    """Adds the indexes."""
    with op.get_context().autocommit_block():
        for name, definition in _INDEXES.items():
            # One that was cut off while it was built is there already, and of no use.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {definition}")
