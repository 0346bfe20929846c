"""Webhook endpoints, deliveries and attempts."""

from alembic import op

revision = "0002"
down_revision = "0001"

# The notifier writes endpoint and delivery rows several times over; the spare room of the lower fillfactor
# keeps their new versions on the same page.
_TABLES = """
CREATE TABLE endpoint (
    organization_id bigint NOT NULL,
    endpoint_id text COLLATE "C" NOT NULL,
    url text NOT NULL,
    description text NOT NULL DEFAULT '',
    event_types text[] COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL,
    create_time timestamptz NOT NULL,
    delete_time timestamptz,
    in_flight integer NOT NULL DEFAULT 0,
    last_claim_time timestamptz NOT NULL DEFAULT 'epoch',
    PRIMARY KEY (organization_id, endpoint_id),
    CONSTRAINT endpoint_in_flight_not_negative CHECK (in_flight >= 0)
) WITH (fillfactor = 70);

CREATE TABLE endpoint_secret (
    organization_id bigint NOT NULL,
    endpoint_id text COLLATE "C" NOT NULL,
    sequence integer NOT NULL,
    secret text NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (organization_id, endpoint_id, sequence)
);

CREATE TABLE delivery (
    organization_id bigint NOT NULL,
    delivery_id text COLLATE "C" NOT NULL,
    endpoint_id text COLLATE "C" NOT NULL,
    notification_id text COLLATE "C" NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    attempt_count integer NOT NULL DEFAULT 0,
    create_time timestamptz NOT NULL,
    next_attempt_time timestamptz,
    finish_time timestamptz,
    lease_token uuid,
    lease_expire_time timestamptz,
    PRIMARY KEY (organization_id, delivery_id),
    CONSTRAINT delivery_waits_is_leased_or_is_finished
        CHECK (num_nonnulls(next_attempt_time, lease_token) = CASE status WHEN 'PENDING' THEN 1 ELSE 0 END)
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX delivery_once ON delivery (organization_id, notification_id, endpoint_id);
CREATE INDEX delivery_by_time ON delivery (organization_id, create_time, delivery_id);
CREATE INDEX delivery_by_endpoint ON delivery (organization_id, endpoint_id, create_time, delivery_id);
CREATE INDEX delivery_waiting ON delivery (organization_id, endpoint_id, next_attempt_time)
    WHERE next_attempt_time IS NOT NULL;
CREATE INDEX delivery_leased ON delivery (lease_expire_time) WHERE lease_token IS NOT NULL;

CREATE TABLE attempt (
    organization_id bigint NOT NULL,
    delivery_id text COLLATE "C" NOT NULL,
    attempt_number integer NOT NULL,
    start_time timestamptz NOT NULL,
    duration interval NOT NULL,
    outcome text COLLATE "C" NOT NULL,
    http_status integer,
    response_excerpt text NOT NULL DEFAULT '',
    error text NOT NULL DEFAULT '',
    PRIMARY KEY (organization_id, delivery_id, attempt_number)
);
"""


def upgrade() -> None:
    """Creates the tables of the notifier."""
    for statement in _TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
