"""The life of an alert: resets, thresholds of former versions, and who changed what."""

from alembic import op

revision = "0008"
down_revision = "0007"

_TABLES = """
ALTER TABLE alert
    ADD COLUMN create_epoch bigint NOT NULL DEFAULT 0,
    ADD COLUMN reset_version bigint NOT NULL DEFAULT 0,
    ADD COLUMN retired jsonb NOT NULL DEFAULT '[]';
UPDATE alert SET create_epoch = watching_epoch;

CREATE TABLE alert_change (
    organization_id bigint NOT NULL,
    alert_id text COLLATE "C" NOT NULL,
    change_number bigint GENERATED ALWAYS AS IDENTITY,
    kind text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    key_id text COLLATE "C" NOT NULL,
    customer_id text COLLATE "C",
    subscription_id text COLLATE "C",
    definition jsonb NOT NULL,
    change_time timestamptz NOT NULL,
    PRIMARY KEY (organization_id, alert_id, change_number)
);
"""


def upgrade() -> None:
    """Adds to alerts, and creates the table of their changes."""
    op.execute(_TABLES)
