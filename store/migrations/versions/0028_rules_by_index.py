"""Rules by index: the alerts that name a customer, the wide ones, and the metrics that changed are found by index."""

from alembic import op

revision = "0028"
down_revision = "0027"

_INDEXES = """
CREATE INDEX alert_of_customer ON alert (organization_id, customer_id, alert_id) WHERE customer_id IS NOT NULL;
CREATE INDEX alert_wide_by_change ON alert (organization_id, changed_epoch) WHERE customer_id IS NULL;
CREATE INDEX metric_by_change ON metric (organization_id, changed_epoch);
"""


def upgrade() -> None:
    """Adds the indexes."""
    op.execute(_INDEXES)
