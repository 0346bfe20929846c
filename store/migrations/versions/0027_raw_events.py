"""Raw events: events with a type instead of a metric, and the metrics in which they count."""

from alembic import op

revision = "0027"
down_revision = "0026"
# An older server would recount the gauges of a metric without its raw events.
oldest_compatible = "0027"

# Columns without a default, or with a constant one, rewrite nothing.
_COLUMNS = """
ALTER TABLE event ADD COLUMN event_name text COLLATE "C", ALTER COLUMN metric_id DROP NOT NULL;
ALTER TABLE voided_event ADD COLUMN event_name text COLLATE "C", ALTER COLUMN metric_id DROP NOT NULL;
ALTER TABLE metric
    ADD COLUMN event_name text COLLATE "C",
    ADD COLUMN event_filters jsonb NOT NULL DEFAULT '[]',
    ADD COLUMN quantity_property text COLLATE "C",
    ADD COLUMN create_epoch bigint;
CREATE INDEX metric_with_event_name ON metric (organization_id) WHERE event_name IS NOT NULL;
"""


def upgrade() -> None:
    """Adds the columns and the index."""
    op.execute(_COLUMNS)
