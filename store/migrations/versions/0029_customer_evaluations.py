"""Customers that still have to be evaluated on a change of their facts, limits or alerts."""

from alembic import op

revision = "0029"
down_revision = "0028"
oldest_compatible = "0027"

# An older server evaluates in the transaction of the change, and notes nothing here.
_TABLE = """
CREATE TABLE customer_evaluation (
    organization_id bigint NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    facts boolean NOT NULL,
    usage boolean NOT NULL,
    subscriptions boolean NOT NULL,
    limit_units text[] COLLATE "C" NOT NULL,
    alert_ids text[] COLLATE "C" NOT NULL DEFAULT '{}',
    epoch bigint NOT NULL,
    change_time timestamptz NOT NULL,
    due_time timestamptz NOT NULL,
    PRIMARY KEY (organization_id, customer_id)
);
CREATE INDEX customer_evaluation_due ON customer_evaluation (organization_id, due_time);
"""


def upgrade() -> None:
    """Adds the table."""
    op.execute(_TABLE)
