"""Parts of the backfills of new metrics, and an index of the alerts that cover a customer by its plans."""

from alembic import op

revision = "0032"
down_revision = "0030"
oldest_compatible = "0027"

# An older server sets no position: it begins all backfills in the transaction that creates the metric.
_COLUMN = 'ALTER TABLE metric ADD COLUMN IF NOT EXISTS backfill_after text COLLATE "C"'

_INDEXES = {
    "metric_backfilling": "metric (organization_id, metric_id) WHERE backfill_after IS NOT NULL",
    # Replaces alert_wide_by_age, in which the alerts of one plan are between those of all others. Servers of the
    # version before list the alerts of a customer more slowly without it.
    "alert_wide_by_plan": (
        "alert (organization_id, (coalesce(plan_id, '')), create_time, alert_id) WHERE customer_id IS NULL"
    ),
}


def upgrade() -> None:
    """Adds the column and the indexes, then drops the index that is replaced."""
    op.execute(_COLUMN)
    with op.get_context().autocommit_block():
        for name, definition in _INDEXES.items():
            # One that was cut off while it was built is there already, and of no use.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {definition}")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS alert_wide_by_age")
