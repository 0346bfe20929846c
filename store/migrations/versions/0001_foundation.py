"""Accounts, alerts, usage and notifications."""

from alembic import op

revision = "0001"
down_revision = None

_TABLES = """
CREATE TABLE organization (
    organization_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    epoch bigint NOT NULL DEFAULT 0,
    create_time timestamptz NOT NULL
);

CREATE TABLE api_key (
    key_hash bytea PRIMARY KEY,
    key_id text COLLATE "C" NOT NULL UNIQUE,
    organization_id bigint NOT NULL REFERENCES organization,
    create_time timestamptz NOT NULL,
    revoke_time timestamptz
);

CREATE TABLE request (
    organization_id bigint NOT NULL,
    method text COLLATE "C" NOT NULL,
    request_id text COLLATE "C" NOT NULL,
    payload_digest bytea NOT NULL,
    response bytea NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (organization_id, method, request_id)
);

CREATE TABLE customer (
    organization_id bigint NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    display_name text NOT NULL DEFAULT '',
    plan_id text COLLATE "C",
    currency text COLLATE "C" NOT NULL DEFAULT 'USD',
    anchor_time timestamptz NOT NULL,
    cadence text COLLATE "C" NOT NULL,
    interval_count integer NOT NULL,
    time_zone text COLLATE "C" NOT NULL,
    as_of_time timestamptz,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    changed_epoch bigint NOT NULL,
    PRIMARY KEY (organization_id, customer_id)
);

CREATE INDEX customer_by_change ON customer (organization_id, changed_epoch);

CREATE TABLE subscription (
    organization_id bigint NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    subscription_id text COLLATE "C" NOT NULL,
    plan_id text COLLATE "C",
    currency text COLLATE "C",
    anchor_time timestamptz,
    cadence text COLLATE "C",
    interval_count integer,
    time_zone text COLLATE "C",
    start_time timestamptz,
    end_time timestamptz,
    as_of_time timestamptz,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    changed_epoch bigint NOT NULL,
    PRIMARY KEY (organization_id, customer_id, subscription_id)
);

CREATE INDEX subscription_by_change ON subscription (organization_id, changed_epoch);

CREATE TABLE metric (
    organization_id bigint NOT NULL,
    metric_id text COLLATE "C" NOT NULL,
    display_name text NOT NULL DEFAULT '',
    aggregation text COLLATE "C" NOT NULL,
    unique_property text COLLATE "C",
    as_of_time timestamptz,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    changed_epoch bigint NOT NULL,
    PRIMARY KEY (organization_id, metric_id)
);

CREATE TABLE alert (
    organization_id bigint NOT NULL,
    alert_id text COLLATE "C" NOT NULL,
    name text NOT NULL,
    state text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,
    plan_id text COLLATE "C",
    customer_id text COLLATE "C",
    subscription_id text COLLATE "C",
    condition_type text COLLATE "C" NOT NULL,
    condition jsonb NOT NULL,
    thresholds jsonb NOT NULL,
    uniqueness_key text COLLATE "C",
    uniqueness_key_held boolean NOT NULL,
    natural_key text COLLATE "C",
    evaluate_on_create boolean NOT NULL,
    version bigint NOT NULL,
    changed_epoch bigint NOT NULL,
    watching_epoch bigint NOT NULL,
    watching_time timestamptz NOT NULL,
    visit_after text COLLATE "C",
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    archive_time timestamptz,
    PRIMARY KEY (organization_id, alert_id)
);
CREATE UNIQUE INDEX alert_uniqueness_key ON alert (organization_id, uniqueness_key) WHERE uniqueness_key_held;
CREATE UNIQUE INDEX alert_natural_key ON alert (organization_id, natural_key) WHERE natural_key IS NOT NULL;
CREATE INDEX alert_by_change ON alert (organization_id, changed_epoch);
CREATE INDEX alert_by_age ON alert (organization_id, create_time, alert_id);
CREATE INDEX alert_visiting ON alert (organization_id, alert_id) WHERE visit_after IS NOT NULL;

CREATE TABLE alert_state (
    organization_id bigint NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    gauge_id uuid NOT NULL,
    alert_id text COLLATE "C" NOT NULL,
    alert_version bigint NOT NULL,
    reached jsonb NOT NULL,
    sequence bigint NOT NULL,
    change_time timestamptz,
    change_reason text COLLATE "C",
    PRIMARY KEY (organization_id, customer_id, gauge_id, alert_id)
);

CREATE TABLE event (
    organization_id bigint NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    event_id text COLLATE "C" NOT NULL,
    event_time timestamptz NOT NULL,
    ingest_time timestamptz NOT NULL,
    subscription_id text COLLATE "C",
    metric_id text COLLATE "C" NOT NULL,
    quantity numeric NOT NULL,
    cost numeric,
    currency text COLLATE "C",
    properties jsonb
) PARTITION BY RANGE (event_time);

CREATE TABLE gauge (
    organization_id bigint NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    gauge_id uuid NOT NULL,
    value numeric NOT NULL,
    trip_above numeric,
    trip_below numeric,
    rules_epoch bigint NOT NULL,
    update_time timestamptz NOT NULL,
    latest_event_time timestamptz,
    subscription_id text COLLATE "C",
    measure text COLLATE "C",
    group_values jsonb,
    period_start timestamptz,
    period_end timestamptz,
    PRIMARY KEY (organization_id, customer_id, gauge_id)
) WITH (fillfactor = 60);
CREATE INDEX gauge_by_period_end ON gauge (period_end);

CREATE TABLE unique_value (
    organization_id bigint NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    gauge_id uuid NOT NULL,
    value text COLLATE "C" NOT NULL,
    PRIMARY KEY (organization_id, customer_id, gauge_id, value)
);

CREATE TABLE notification (
    organization_id bigint NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    notification_id text COLLATE "C" NOT NULL,
    alert_id text COLLATE "C" NOT NULL,
    gauge_id uuid NOT NULL,
    sequence bigint NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    condition_type text COLLATE "C" NOT NULL,
    create_time timestamptz NOT NULL,
    body text NOT NULL,
    PRIMARY KEY (organization_id, customer_id, notification_id)
);
CREATE INDEX notification_by_time ON notification (organization_id, create_time);

CREATE TABLE outbox (
    outbox_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization_id bigint NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    notification_id text COLLATE "C" NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    condition_type text COLLATE "C" NOT NULL,
    create_time timestamptz NOT NULL
);
"""


def upgrade() -> None:
    """Creates the tables; the partitions of `event` are made by the server as time goes on."""
    for statement in _TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
