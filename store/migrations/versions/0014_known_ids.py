"""Indexes that say at once whether anybody is on a plan, and whether anything limits a metric or a currency."""

from alembic import op

revision = "0014"
down_revision = "0013"

# Partial: customers and subscriptions that usage creates are on no plan, and pay nothing.
_INDEXES = """
CREATE INDEX customer_of_plan ON customer (organization_id, plan_id, customer_id) WHERE plan_id IS NOT NULL;
CREATE INDEX subscription_of_plan ON subscription (organization_id, plan_id, customer_id, subscription_id)
    WHERE plan_id IS NOT NULL;
CREATE INDEX limit_of_metric ON usage_limit (organization_id, metric_id) WHERE metric_id IS NOT NULL;
CREATE INDEX limit_of_currency ON usage_limit (organization_id, currency) WHERE currency IS NOT NULL;
"""


def upgrade() -> None:
    """Adds the indexes."""
    op.execute(_INDEXES)
