"""What finds the limits of a customer or a plan, and those that have changed."""

from alembic import op

revision = "0009"
down_revision = "0008"

_INDEXES = """
CREATE INDEX limit_of_customer ON usage_limit (organization_id, customer_id) WHERE customer_id IS NOT NULL;
CREATE INDEX limit_of_plan ON usage_limit (organization_id, plan_id) WHERE plan_id IS NOT NULL;
CREATE INDEX limit_by_change ON usage_limit (organization_id, changed_epoch);
"""


def upgrade() -> None:
    """Creates the indexes."""
    op.execute(_INDEXES)
