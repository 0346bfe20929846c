"""Usage events, those that were voided, and the gauges that events move."""

from sqlalchemy import BigInteger, Column, Identity, Index, Table, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from store.tables.base import Amount, Identifier, Organization, Time, metadata
from store.tables.placement import BY_CUSTOMER, lies

# Partitioned by month of event_time. Each partition has a unique index of its own (see `event_key`); this table has
# none: PostgreSQL requires event_time in it, and then the same id with another time would be a new event.
event = Table(
    "event",
    metadata,
    Column("organization_id", Organization, nullable=False),
    Column("customer_id", Identifier, nullable=False),
    Column("event_id", Identifier, nullable=False),
    Column("event_time", Time, nullable=False),
    Column("ingest_time", Time, nullable=False),
    Column("subscription_id", Identifier),
    Column("metric_id", Identifier),  # unset for a raw event
    Column("quantity", Amount, nullable=False),
    Column("cost", Amount),
    Column("currency", Identifier),
    Column("properties", JSONB),
    Column("event_name", Identifier),  # of a raw event
    postgresql_partition_by="RANGE (event_time)",
    info=lies(BY_CUSTOMER),
)

gauge = Table(
    "gauge",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("customer_id", Identifier, primary_key=True),
    Column("gauge_id", Uuid, primary_key=True),  # a digest of all that it measures
    Column("value", Amount, nullable=False),
    Column("scale", Amount),  # of a percentage: what of value is 100 %
    Column("trip_above", Amount),  # the trip levels
    Column("trip_below", Amount),
    Column("rules_epoch", BigInteger, nullable=False),  # of the organization, when it was last evaluated
    Column("update_time", Time, nullable=False),
    Column("latest_event_time", Time),  # of the event whose value LATEST has
    Column("latest_event", Identifier),  # the same time, and the event's id; see store/usage/gauges.py
    # Set by the first evaluation, in the transaction that inserts the row.
    Column("subscription_id", Identifier),
    Column("measure", Identifier),
    Column("group_values", JSONB),
    Column("period_start", Time),
    Column("period_end", Time),
    Index("gauge_by_period_end", "period_end"),
    info=lies(BY_CUSTOMER),
)

# The values that gauges of UNIQUE_COUNT metrics have counted.
unique_value = Table(
    "unique_value",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("customer_id", Identifier, primary_key=True),
    Column("gauge_id", Uuid, primary_key=True),
    Column("value", Identifier, primary_key=True),
    info=lies(BY_CUSTOMER),
)

# Events that were taken back: no row of `event` is left of them. The same id may be voided several times, because it
# can be sent again after each void.
voided_event = Table(
    "voided_event",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("customer_id", Identifier, primary_key=True),
    Column("event_id", Identifier, primary_key=True),
    Column("void_number", BigInteger, Identity(always=True), primary_key=True),
    Column("event_time", Time, nullable=False),
    Column("ingest_time", Time, nullable=False),
    Column("subscription_id", Identifier),
    Column("metric_id", Identifier),  # unset for a raw event
    Column("quantity", Amount, nullable=False),
    Column("cost", Amount),
    Column("currency", Identifier),
    Column("properties", JSONB),
    Column("void_time", Time, nullable=False),
    Column("key_id", Identifier),  # the API key of the request; unset: no key was needed
    Column("event_name", Identifier),  # of a raw event
    Index("voided_event_by_time", "event_time"),
    info=lies(BY_CUSTOMER),
)
