"""Endpoint policy: what an endpoint may be sent and how fast, how healthy it is; secrets and days of deliveries."""

from alembic import op

revision = "0003"
down_revision = "0002"

_ENDPOINT = """
ALTER TABLE endpoint
    ADD COLUMN metadata jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN condition_types text[] COLLATE "C" NOT NULL DEFAULT '{}',
    ADD COLUMN headers jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN credentials bytea,
    ADD COLUMN credentials_key_id text COLLATE "C",
    ADD COLUMN rate_per_second numeric,
    ADD COLUMN max_in_flight integer NOT NULL DEFAULT 4,
    ADD COLUMN update_time timestamptz,
    ADD COLUMN disable_reason text COLLATE "C",
    ADD COLUMN not_before timestamptz,
    ADD COLUMN throttle_count integer NOT NULL DEFAULT 0,
    ADD COLUMN breaker_state text COLLATE "C" NOT NULL DEFAULT 'CLOSED',
    ADD COLUMN breaker_until timestamptz,
    ADD COLUMN breaker_failures integer NOT NULL DEFAULT 0,
    ADD COLUMN breaker_openings integer NOT NULL DEFAULT 0,
    ADD COLUMN breaker_window integer,
    ADD COLUMN tokens numeric NOT NULL DEFAULT 0,
    ADD COLUMN token_time timestamptz NOT NULL DEFAULT 'epoch',
    ADD COLUMN failing_since timestamptz,
    ADD COLUMN failure_count integer NOT NULL DEFAULT 0,
    ADD COLUMN last_success_time timestamptz,
    ADD COLUMN warned_percent integer NOT NULL DEFAULT 0,
    ADD COLUMN exhaustion_noted boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT endpoint_max_in_flight_positive CHECK (max_in_flight > 0),
    ADD CONSTRAINT endpoint_rate_positive CHECK (rate_per_second > 0),
    ADD CONSTRAINT endpoint_credentials_have_a_key
        CHECK ((credentials IS NULL) = (credentials_key_id IS NULL));

ALTER TABLE endpoint_secret
    ALTER COLUMN secret DROP NOT NULL,
    ADD COLUMN ciphertext bytea,
    ADD COLUMN key_id text COLLATE "C",
    ADD COLUMN kind text COLLATE "C" NOT NULL DEFAULT 'v1',
    ADD COLUMN not_after timestamptz,
    ADD CONSTRAINT endpoint_secret_is_plain_or_sealed CHECK (num_nonnulls(secret, ciphertext) = 1),
    ADD CONSTRAINT endpoint_secret_has_a_key CHECK ((ciphertext IS NULL) = (key_id IS NULL));

CREATE TABLE operator_event (
    organization_id bigint NOT NULL,
    event_id text COLLATE "C" NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    endpoint_id text COLLATE "C" NOT NULL,
    body text NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (organization_id, event_id)
);
CREATE INDEX operator_event_by_time ON operator_event (organization_id, create_time, event_id);

CREATE TABLE redelivery_job (
    organization_id bigint NOT NULL,
    job_id text COLLATE "C" NOT NULL,
    endpoint_id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL,
    start_time timestamptz NOT NULL,
    end_time timestamptz NOT NULL,
    statuses text[] COLLATE "C" NOT NULL,
    event_type text COLLATE "C",
    customer_id text COLLATE "C",
    after_time timestamptz,
    after_id text COLLATE "C",
    examined_count bigint NOT NULL DEFAULT 0,
    redelivered_count bigint NOT NULL DEFAULT 0,
    create_time timestamptz NOT NULL,
    finish_time timestamptz,
    PRIMARY KEY (organization_id, job_id)
);
CREATE INDEX redelivery_job_by_time ON redelivery_job (organization_id, create_time, job_id);
CREATE INDEX redelivery_job_running ON redelivery_job (create_time) WHERE state = 'RUNNING';
"""

# Live rows have the day 'infinity' and a partition of their own, which stays small whatever was ever delivered; a
# finished row lies in the partition of its day, which is dropped as a whole. The default partitions take what
# has no partition yet.
_DAYS = """
ALTER TABLE delivery RENAME TO old_delivery;
ALTER TABLE old_delivery RENAME CONSTRAINT delivery_pkey TO old_delivery_pkey;
DROP INDEX delivery_once;
DROP INDEX delivery_by_time;
DROP INDEX delivery_by_endpoint;
DROP INDEX delivery_waiting;
DROP INDEX delivery_leased;

CREATE TABLE delivery (
    organization_id bigint NOT NULL,
    delivery_id text COLLATE "C" NOT NULL,
    endpoint_id text COLLATE "C" NOT NULL,
    notification_id text COLLATE "C" NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    trigger text COLLATE "C" NOT NULL DEFAULT 'AUTOMATIC',
    idempotency_key text COLLATE "C",
    attempt_count integer NOT NULL DEFAULT 0,
    schedule_step integer NOT NULL DEFAULT 0,
    create_time timestamptz NOT NULL,
    next_attempt_time timestamptz,
    finish_time timestamptz,
    finish_day date NOT NULL DEFAULT 'infinity',
    lease_token uuid,
    lease_expire_time timestamptz,
    PRIMARY KEY (organization_id, delivery_id, finish_day),
    CONSTRAINT delivery_waits_is_leased_or_is_finished
        CHECK (num_nonnulls(next_attempt_time, lease_token) = CASE status WHEN 'PENDING' THEN 1 ELSE 0 END),
    CONSTRAINT delivery_lies_in_its_day CHECK ((finish_day = 'infinity') = (status = 'PENDING'))
) PARTITION BY RANGE (finish_day);
CREATE INDEX delivery_by_time ON delivery (organization_id, create_time, delivery_id);
CREATE INDEX delivery_by_endpoint ON delivery (organization_id, endpoint_id, create_time, delivery_id);
CREATE INDEX delivery_by_notification ON delivery (organization_id, notification_id);
CREATE TABLE delivery_live PARTITION OF delivery FOR VALUES FROM ('infinity') TO (MAXVALUE) WITH (fillfactor = 70);
CREATE TABLE delivery_default PARTITION OF delivery DEFAULT;
CREATE UNIQUE INDEX delivery_once ON delivery_live (organization_id, notification_id, endpoint_id);
CREATE INDEX delivery_waiting ON delivery_live (organization_id, endpoint_id, next_attempt_time)
    WHERE next_attempt_time IS NOT NULL;
CREATE INDEX delivery_leased ON delivery_live (lease_expire_time) WHERE lease_token IS NOT NULL;

INSERT INTO delivery (organization_id, delivery_id, endpoint_id, notification_id, customer_id, event_type, status,
                      attempt_count, schedule_step, create_time, next_attempt_time, finish_time, finish_day,
                      lease_token, lease_expire_time)
SELECT organization_id, delivery_id, endpoint_id, notification_id, customer_id, event_type, status,
       attempt_count, attempt_count, create_time, next_attempt_time, finish_time,
       CASE WHEN status = 'PENDING' THEN 'infinity' ELSE (coalesce(finish_time, now()) AT TIME ZONE 'UTC')::date END,
       lease_token, lease_expire_time
FROM old_delivery;
DROP TABLE old_delivery;

ALTER TABLE attempt RENAME TO old_attempt;
ALTER TABLE old_attempt RENAME CONSTRAINT attempt_pkey TO old_attempt_pkey;
CREATE TABLE attempt (
    organization_id bigint NOT NULL,
    delivery_id text COLLATE "C" NOT NULL,
    attempt_number integer NOT NULL,
    trigger text COLLATE "C" NOT NULL DEFAULT 'AUTOMATIC',
    start_time timestamptz NOT NULL,
    duration interval NOT NULL,
    outcome text COLLATE "C" NOT NULL,
    http_status integer,
    remote_address text NOT NULL DEFAULT '',
    secret_sequences integer[] NOT NULL DEFAULT '{}',
    response_excerpt text NOT NULL DEFAULT '',
    error text NOT NULL DEFAULT '',
    PRIMARY KEY (organization_id, delivery_id, attempt_number, start_time)
) PARTITION BY RANGE (start_time);
CREATE TABLE attempt_default PARTITION OF attempt DEFAULT;
INSERT INTO attempt (organization_id, delivery_id, attempt_number, start_time, duration, outcome, http_status,
                     response_excerpt, error)
SELECT organization_id, delivery_id, attempt_number, start_time, duration, outcome, http_status,
       response_excerpt, error
FROM old_attempt;
DROP TABLE old_attempt;
"""


def upgrade() -> None:
    """Adds the columns and tables, and lays deliveries and attempts out by day."""
    for statement in (_ENDPOINT + _DAYS).split(";\n"):
        if statement.strip():
            op.execute(statement)
