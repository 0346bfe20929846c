"""The feed of each organization: its notifications in the one order in which everybody is told of them."""

from sqlalchemy import BigInteger, Column, Identity, Index, Table

from store.tables.base import Identifier, Organization, Time, metadata

feed = Table(
    "feed",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("last_place", BigInteger, nullable=False),  # that has been given out
    Column("forgotten_place", BigInteger, nullable=False, server_default="0"),  # what stood up to it is deleted
    Column("high_time", Time, nullable=False),  # the latest create_time up to last_place
)

feed_pending = Table(
    "feed_pending",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("arrival", BigInteger, Identity(always=True), primary_key=True),
    Column("customer_id", Identifier, nullable=False),
    Column("notification_id", Identifier, nullable=False),
)

# What lists are narrowed by is repeated here, so that its indexes are written beside the hot path and not on it.
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
    Column("high_time", Time, nullable=False),  # the latest create_time up to this place: it never falls
    Index("feed_entry_by_id", "organization_id", "notification_id", unique=True),
    Index("feed_entry_by_time", "organization_id", "create_time", "place"),
    Index("feed_entry_by_customer", "organization_id", "customer_id", "create_time", "place"),
    Index("feed_entry_by_alert", "organization_id", "alert_id", "create_time", "place"),
    Index("feed_entry_by_high_time", "organization_id", "high_time", "place"),
)
