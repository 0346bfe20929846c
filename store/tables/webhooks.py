"""Webhook endpoints, their secrets, the deliveries to them and every attempt."""

from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    Column,
    Index,
    Integer,
    Interval,
    Table,
    Text,
    Uuid,
    text,
)

from store.tables.base import Identifier, Organization, Time, metadata

endpoint = Table(
    "endpoint",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("endpoint_id", Identifier, primary_key=True),
    Column("url", Text, nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("event_types", ARRAY(Identifier), nullable=False),  # empty: every type
    Column("state", Identifier, nullable=False),
    Column("create_time", Time, nullable=False),
    Column("delete_time", Time),  # the row stays for the sake of its deliveries
    # The notifier's own two: how many deliveries are leased, and when one was last claimed.
    Column("in_flight", Integer, nullable=False, server_default="0"),
    Column("last_claim_time", Time, nullable=False, server_default=text("'epoch'")),
    CheckConstraint("in_flight >= 0", name="endpoint_in_flight_not_negative"),
)

endpoint_secret = Table(
    "endpoint_secret",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("endpoint_id", Identifier, primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),  # the newest has the highest
    Column("secret", Text, nullable=False),
    Column("create_time", Time, nullable=False),
)

# A delivery is in one of three conditions: it waits (next_attempt_time is set), a notifier holds it
# (lease_token is set), or it is finished (neither is).
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
    Column("attempt_count", Integer, nullable=False, server_default="0"),
    Column("create_time", Time, nullable=False),
    Column("next_attempt_time", Time),
    Column("finish_time", Time),
    Column("lease_token", Uuid),
    Column("lease_expire_time", Time),
    CheckConstraint(
        "num_nonnulls(next_attempt_time, lease_token) = CASE status WHEN 'PENDING' THEN 1 ELSE 0 END",
        name="delivery_waits_is_leased_or_is_finished",
    ),
    Index("delivery_once", "organization_id", "notification_id", "endpoint_id", unique=True),
    Index("delivery_by_time", "organization_id", "create_time", "delivery_id"),
    Index("delivery_by_endpoint", "organization_id", "endpoint_id", "create_time", "delivery_id"),
    Index(
        "delivery_waiting",
        "organization_id",
        "endpoint_id",
        "next_attempt_time",
        postgresql_where=text("next_attempt_time IS NOT NULL"),
    ),
    Index("delivery_leased", "lease_expire_time", postgresql_where=text("lease_token IS NOT NULL")),
)

attempt = Table(
    "attempt",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("delivery_id", Identifier, primary_key=True),
    Column("attempt_number", Integer, primary_key=True, autoincrement=False),
    Column("start_time", Time, nullable=False),
    Column("duration", Interval, nullable=False),
    Column("outcome", Identifier, nullable=False),
    Column("http_status", Integer),
    Column("response_excerpt", Text, nullable=False, server_default=""),
    Column("error", Text, nullable=False, server_default=""),
)
