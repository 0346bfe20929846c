"""Voided events: what was taken back, by which key and when."""

from alembic import op

revision = "0025"
down_revision = "0024"
# The code of 0024 does not know the table, and reads and writes nothing in it.
oldest_compatible = "0024"

_TABLE = """
CREATE TABLE voided_event (
    organization_id bigint NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    event_id text COLLATE "C" NOT NULL,
    void_number bigint GENERATED ALWAYS AS IDENTITY,
    event_time timestamptz NOT NULL,
    ingest_time timestamptz NOT NULL,
    subscription_id text COLLATE "C",
    metric_id text COLLATE "C" NOT NULL,
    quantity numeric NOT NULL,
    cost numeric,
    currency text COLLATE "C",
    properties jsonb,
    void_time timestamptz NOT NULL,
    key_id text COLLATE "C",
    PRIMARY KEY (organization_id, customer_id, event_id, void_number)
);
CREATE INDEX voided_event_by_time ON voided_event (event_time);
"""


def upgrade() -> None:
    """Adds the table."""
    op.execute(_TABLE)
