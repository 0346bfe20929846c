"""Notifications, the outbox, from which the notifier takes them, and lists of what answers left out."""

from sqlalchemy import ARRAY, BigInteger, Column, Identity, Index, Table, Text, Uuid

from store.tables.base import Identifier, Organization, Time, metadata
from store.tables.placement import BY_CUSTOMER, COORDINATOR, lies

notification = Table(
    "notification",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("customer_id", Identifier, primary_key=True),
    Column("notification_id", Identifier, primary_key=True),  # a digest of alert, gauge and sequence
    Column("alert_id", Identifier, nullable=False),
    Column("gauge_id", Uuid),  # unset if it is not about one gauge
    Column("sequence", BigInteger, nullable=False),  # from 1; 0 if it is not about one gauge
    Column("event_type", Identifier, nullable=False),
    Column("condition_type", Identifier, nullable=False),
    Column("create_time", Time, nullable=False),
    Column("body", Text, nullable=False),  # the webhook's body, byte for byte
    # The trace of what caused it, as `TraceContext.stored`; empty without one, which costs a byte. A null would cost
    # each row eight bytes: the other columns are set, so that rows have no list of nulls.
    Column("trace_context", Text, nullable=False, server_default=""),
    Index("notification_by_time", "organization_id", "create_time"),
    info=lies(BY_CUSTOMER),
)

outbox = Table(
    "outbox",
    metadata,
    Column("outbox_id", BigInteger, Identity(always=True), primary_key=True),
    Column("organization_id", Organization, nullable=False),
    Column("customer_id", Identifier, nullable=False),
    Column("notification_id", Identifier, nullable=False),
    Column("event_type", Identifier, nullable=False),
    Column("condition_type", Identifier, nullable=False),
    Column("create_time", Time, nullable=False),
    info=lies(BY_CUSTOMER, key=("create_time", "outbox_id", "customer_id")),  # rows of nodes are compared by time
)

# One row, which each fan-out on a cluster changes. So Citus prepares its transaction on the workers: without that, a
# crash could delete rows of the outbox and lose their deliveries, which are in tables that Citus does not know.
fan_out = Table(
    "fan_out",
    metadata,
    Column("fan_out_id", BigInteger, primary_key=True, autoincrement=False),  # 1
    Column("fan_outs", BigInteger, nullable=False),  # how many there were
    info=lies(COORDINATOR),
)

omitted_notifications = Table(
    "omitted_notifications",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("list_id", Identifier, primary_key=True),
    Column("notification_ids", ARRAY(Text), nullable=False),  # in the order of the transitions that were left out
    Column("create_time", Time, nullable=False),
    Index("omitted_notifications_by_time", "create_time"),
    info=lies(COORDINATOR),
)
