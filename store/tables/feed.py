"""The feed of each organization: its notifications in one order. A position in it is called `place` in the schema."""

from sqlalchemy import BigInteger, Column, Identity, Index, Table

from store.tables.base import Identifier, Organization, Time, metadata
from store.tables.placement import BY_CUSTOMER, COORDINATOR_ALONE, lies

feed = Table(
    "feed",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("last_place", BigInteger, nullable=False),  # the last position that is assigned
    Column(
        "forgotten_place", BigInteger, nullable=False, server_default="0"
    ),  # entries up to this position are deleted
    Column("high_time", Time, nullable=False),  # the latest create_time up to last_place
    info=lies(COORDINATOR_ALONE),
)

# On one PostgreSQL, placing takes the first by `arrival`. On a cluster each node has numbers of its own, and placing
# takes the first by `sequence`, which is that of the notification; on one PostgreSQL it is 0.
feed_pending = Table(
    "feed_pending",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("arrival", BigInteger, Identity(always=True), primary_key=True),
    Column("customer_id", Identifier, nullable=False),
    Column("notification_id", Identifier, nullable=False),
    Column("sequence", BigInteger, nullable=False, server_default="0"),
    info=lies(BY_CUSTOMER, key=("organization_id", "sequence", "arrival", "customer_id")),
)

# Repeats the columns that lists filter by, so that the hot path does not write their indexes.
feed_entry = Table(
    "feed_entry",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("place", BigInteger, primary_key=True, autoincrement=False),
    Column("notification_id", Identifier, nullable=False),
    Column("customer_id", Identifier, nullable=False),
    Column("alert_id", Identifier, nullable=False),
    Column("event_type", Identifier, nullable=False),
    Column("condition_type", Identifier, nullable=False),
    Column("create_time", Time, nullable=False),
    Column("high_time", Time, nullable=False),  # the latest create_time up to this position
    Index("feed_entry_by_id", "organization_id", "notification_id", unique=True),
    Index("feed_entry_by_time", "organization_id", "create_time", "place"),
    Index("feed_entry_by_customer", "organization_id", "customer_id", "create_time", "place"),
    Index("feed_entry_by_alert", "organization_id", "alert_id", "create_time", "place"),
    Index("feed_entry_by_high_time", "organization_id", "high_time", "place"),
    info=lies(COORDINATOR_ALONE),
)
