"""Webhook endpoints with their secrets, operator events, deliveries and attempts."""

from sqlalchemy import (
    ARRAY,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    Index,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from store.tables.base import Identifier, Organization, Time, metadata
from store.tables.placement import COORDINATOR, COORDINATOR_ALONE, lies

endpoint = Table(
    "endpoint",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("endpoint_id", Identifier, primary_key=True),
    Column("url", Text, nullable=False),
    # Two columns keep their names from before version 0.1.0: a rename would stop a version that runs beside this one.
    Column("description", Text, key="display_name", nullable=False, server_default=""),
    Column("event_types", ARRAY(Identifier), nullable=False),  # empty: every type
    Column("state", Identifier, nullable=False),
    Column("create_time", Time, nullable=False),
    Column("delete_time", Time),  # the row stays, since its deliveries refer to it
    Column("update_time", Time),  # of the last change by a caller
    Column("metadata", JSONB, key="labels", nullable=False, server_default="{}"),  # text to text; set by callers
    Column("condition_types", ARRAY(Identifier), nullable=False, server_default="{}"),  # empty: every type
    Column("headers", JSONB, nullable=False, server_default="{}"),  # text to text; sent with every attempt
    # The value of the Authorization header ("Basic …", "Bearer …"), encrypted, and the id of its master key.
    Column("credentials", LargeBinary),
    Column("credentials_key_id", Identifier),
    Column("rate_per_second", Numeric),  # attempts; null: no limit
    Column("max_in_flight", Integer, nullable=False, server_default="4"),  # of all notifiers together
    Column("disable_reason", Identifier),  # REQUESTED, GONE, FAILING; null while it is enabled
    # Only the notifier writes the following columns. First the number of leased deliveries, and the last claim.
    Column("in_flight", Integer, nullable=False, server_default="0"),
    Column("last_claim_time", Time, nullable=False, server_default=text("'epoch'")),
    # Back-pressure: the receiver asked for a pause (429, 503) until this time, and so many times in a row.
    Column("not_before", Time),
    Column("throttle_count", Integer, nullable=False, server_default="0"),
    # The circuit breaker: CLOSED, OPEN (until breaker_until), HALF_OPEN (one probe); failures and openings in a row;
    # the limit of deliveries in flight after it closes again, until traffic is normal (null: max_in_flight).
    Column("breaker_state", Identifier, nullable=False, server_default="CLOSED"),
    Column("breaker_until", Time),
    Column("breaker_failures", Integer, nullable=False, server_default="0"),
    Column("breaker_openings", Integer, nullable=False, server_default="0"),
    Column("breaker_window", Integer),
    # The token bucket of rate_per_second: its tokens at token_time.
    Column("tokens", Numeric, nullable=False, server_default="0"),
    Column("token_time", Time, nullable=False, server_default=text("'epoch'")),
    # Health: the first failure since the last success, the number of failures, and which operator events were
    # written.
    Column("failing_since", Time),
    Column("failure_count", Integer, nullable=False, server_default="0"),
    Column("last_success_time", Time),
    Column("warned_percent", Integer, nullable=False, server_default="0"),
    Column("exhaustion_noted", Boolean, nullable=False, server_default=text("false")),
    Index(
        "endpoint_by_age",
        "organization_id",
        "create_time",
        "endpoint_id",
        postgresql_where=text("delete_time IS NULL"),
    ),
    CheckConstraint("in_flight >= 0", name="endpoint_in_flight_not_negative"),
    CheckConstraint("max_in_flight > 0", name="endpoint_max_in_flight_positive"),
    CheckConstraint("rate_per_second > 0", name="endpoint_rate_positive"),
    CheckConstraint("(credentials IS NULL) = (credentials_key_id IS NULL)", name="endpoint_credentials_have_a_key"),
    info=lies(COORDINATOR_ALONE),
)

endpoint_secret = Table(
    "endpoint_secret",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("endpoint_id", Identifier, primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),  # the newest has the highest
    Column("secret", Text),  # in plain text; only in rows from before encryption
    Column("ciphertext", LargeBinary),  # the text form ("whsec_…", "whsk_…"), encrypted
    Column("key_id", Identifier),  # the master key of the ciphertext
    Column("kind", Identifier, nullable=False, server_default="v1"),  # v1: HMAC-SHA256; v1a: ed25519
    Column("not_after", Time),  # it signs until then; null: the current secret
    Column("create_time", Time, nullable=False),
    CheckConstraint("num_nonnulls(secret, ciphertext) = 1", name="endpoint_secret_is_plain_or_sealed"),
    CheckConstraint("(ciphertext IS NULL) = (key_id IS NULL)", name="endpoint_secret_has_a_key"),
    info=lies(COORDINATOR_ALONE),
)

# Operator events. They are delivered like notifications: an outbox row has this event_id as its notification_id, and
# no customer.
operator_event = Table(
    "operator_event",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("event_id", Identifier, primary_key=True),
    Column("event_type", Identifier, nullable=False),
    Column("endpoint_id", Identifier, nullable=False),  # the endpoint that it is about; empty for an evaluation
    Column("body", Text, nullable=False),  # the webhook's body, byte for byte
    Column("trace_context", Text, nullable=False, server_default=""),  # see `notification`
    Column("create_time", Time, nullable=False),
    Index("operator_event_by_time", "organization_id", "create_time", "event_id"),
    info=lies(COORDINATOR),
)

# A delivery waits for its next attempt (next_attempt_time is set), or a notifier has claimed it (lease_token is set),
# or it is finished (neither is set).
delivery = Table(
    "delivery",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("delivery_id", Identifier, primary_key=True),
    Column("endpoint_id", Identifier, nullable=False),
    Column("notification_id", Identifier, nullable=False),
    Column("customer_id", Identifier, nullable=False),
    Column("event_type", Identifier, nullable=False),
    Column("status", Identifier, nullable=False),
    Column("trigger", Identifier, nullable=False, server_default="AUTOMATIC"),  # or MANUAL, RECOVERY, TEST
    Column("idempotency_key", Identifier),  # of the call that requested it
    Column("attempt_count", Integer, nullable=False, server_default="0"),  # all attempts
    Column("schedule_step", Integer, nullable=False, server_default="0"),  # attempts that count in the retry schedule
    Column("create_time", Time, nullable=False),
    Column("next_attempt_time", Time),
    Column("finish_time", Time),
    Column("finish_day", Date, primary_key=True, server_default=text("'infinity'")),
    Column("lease_token", Uuid),
    Column("lease_expire_time", Time),
    CheckConstraint(
        "num_nonnulls(next_attempt_time, lease_token) = CASE status WHEN 'PENDING' THEN 1 ELSE 0 END",
        name="delivery_waits_is_leased_or_is_finished",
    ),
    CheckConstraint("(finish_day = 'infinity') = (status = 'PENDING')", name="delivery_lies_in_its_day"),
    Index("delivery_by_time", "organization_id", "create_time", "delivery_id"),
    Index("delivery_by_endpoint", "organization_id", "endpoint_id", "create_time", "delivery_id"),
    Index("delivery_by_notification", "organization_id", "notification_id"),
    postgresql_partition_by="RANGE (finish_day)",
    info=lies(COORDINATOR_ALONE),
)

attempt = Table(
    "attempt",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("delivery_id", Identifier, primary_key=True),
    Column("attempt_number", Integer, primary_key=True, autoincrement=False),
    Column("trigger", Identifier, nullable=False, server_default="AUTOMATIC"),
    Column("start_time", Time, primary_key=True),
    Column("duration", Interval, nullable=False),
    Column("outcome", Identifier, nullable=False),
    Column("http_status", Integer),
    Column("remote_address", Text, nullable=False, server_default=""),  # the IP address of the connection
    Column("secret_sequences", ARRAY(Integer), nullable=False, server_default="{}"),  # of the secrets that signed it
    Column("response_excerpt", Text, nullable=False, server_default=""),
    Column("error", Text, nullable=False, server_default=""),
    postgresql_partition_by="RANGE (start_time)",
    info=lies(COORDINATOR_ALONE),
)
