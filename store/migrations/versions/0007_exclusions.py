"""Customers that alerts are not evaluated for, the counts of groups, and notifications that are about no gauge."""

from alembic import op

revision = "0007"
down_revision = "0006"

_TABLES = """
CREATE TABLE alert_exclusion (
    organization_id bigint NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    alert_id text COLLATE "C" NOT NULL,
    subscription_id text COLLATE "C" NOT NULL,
    reason text COLLATE "C" NOT NULL,
    changed_epoch bigint NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (organization_id, customer_id, alert_id, subscription_id)
);
CREATE INDEX alert_exclusion_by_change ON alert_exclusion (organization_id, changed_epoch);

CREATE TABLE group_count (
    organization_id bigint NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    alert_id text COLLATE "C" NOT NULL,
    subscription_id text COLLATE "C" NOT NULL,
    period_start timestamptz NOT NULL,
    watching_epoch bigint NOT NULL,
    groups bigint NOT NULL,
    PRIMARY KEY (organization_id, customer_id, alert_id, subscription_id, period_start)
) WITH (fillfactor = 70);

ALTER TABLE notification ALTER COLUMN gauge_id DROP NOT NULL;
"""


def upgrade() -> None:
    """Creates the tables, and lets notifications be about no gauge."""
    op.execute(_TABLES)
