"""Meters, which count what enforced limits limit, and reservations, which hold a part of them."""

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, Table, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB

from store.tables.base import Amount, Identifier, Organization, Time, metadata
from store.tables.placement import BY_CUSTOMER, lies

# Read and changed only by the holder of the customer's wallet.
meter = Table(
    "meter",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("customer_id", Identifier, primary_key=True),
    Column("meter_id", Uuid, primary_key=True),  # a digest of all that it counts
    Column("counted", Amount, nullable=False),
    Column("held", Amount, nullable=False),
    Column("rules_epoch", BigInteger, nullable=False),  # of the organization, when it was last moved
    Column("counted_from", Time),  # of a rolling window: the first minute in `counted`
    Column("refused_time", Time),  # when the operator event of a refusal was last written
    Column("window_end", Time, nullable=False),  # of a rolling window: after it, all has left the window
    Column("subscription_id", Identifier),
    Column("unit", Identifier, nullable=False),  # Unit.key: a currency or a metric
    Column("group_values", JSONB, nullable=False),
    Column("window_kind", Identifier, nullable=False),
    Column("window_minutes", Integer),  # of a rolling window
    Column("window_start", Time),  # unset: the window is rolling
    Column("update_time", Time, nullable=False),
    Index("meter_by_window_end", "window_end"),
    info=lies(BY_CUSTOMER),
)

# What meters with a rolling window have counted in each minute of it.
meter_minute = Table(
    "meter_minute",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("customer_id", Identifier, primary_key=True),
    Column("meter_id", Uuid, primary_key=True),
    Column("minute", Time, primary_key=True),
    Column("counted", Amount, nullable=False),
    info=lies(BY_CUSTOMER),
)

# Read and changed only by the holder of the customer's wallet.
reservation = Table(
    "reservation",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("customer_id", Identifier, primary_key=True),
    Column("reservation_id", Identifier, primary_key=True),
    Column("state", Identifier, nullable=False),
    Column("digest", Uuid, nullable=False),  # of the content of the request
    Column("subscription_id", Identifier),
    Column("metric_id", Identifier, nullable=False),
    Column("quantity", Amount, nullable=False),  # as asked for, like cost
    Column("cost", Amount),
    Column("currency", Identifier),
    Column("properties", JSONB),
    Column("overage_policy", Identifier, nullable=False),
    Column("outcome", Identifier, nullable=False),
    Column("granted_quantity", Amount, nullable=False),
    Column("granted_cost", Amount),
    Column("charges", JSONB),  # what it took of meters: customer, meter and amount of each
    Column("draws", JSONB),  # what it took of balances
    Column("answer", JSONB),  # the first decision; unset: it follows from the other columns
    Column("event_time", Time, nullable=False),
    Column("create_time", Time, nullable=False),
    Column("expire_time", Time, nullable=False),
    Column("end_time", Time),
    Column("settled_quantity", Amount),
    Column("settled_cost", Amount),
    Column("late", Boolean, nullable=False, server_default=text("false")),
    Column("settlement", JSONB),  # what the settlement asked for and its decision, where these do not follow
    Index("reservation_expiring", "expire_time", postgresql_where=text("state = 'OPEN'")),
    Index("reservation_ended", "end_time", postgresql_where=text("state <> 'OPEN'")),
    Index("reservation_open", "organization_id", "customer_id", postgresql_where=text("state = 'OPEN'")),
    info=lies(BY_CUSTOMER),
)
