"""Wallets, whose rows lock what belongs to a customer and contain its timer, and overages."""

from sqlalchemy import ARRAY, Boolean, Column, Index, Table, Text, text

from store.tables.base import Amount, Identifier, Organization, Time, metadata
from store.tables.placement import BY_CUSTOMER, lies

wallet = Table(
    "wallet",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("customer_id", Identifier, primary_key=True),
    # The units (Unit.key) in which the customer has had balances with drawdown, and the properties that name the
    # seats of such balances.
    Column("draw_units", ARRAY(Text(collation="C")), nullable=False, server_default="{}"),
    Column("seat_keys", ARRAY(Text(collation="C")), nullable=False, server_default="{}"),
    # The timer: when time alone next changes what alerts read of the customer. Null: never.
    Column("due_time", Time),
    # The time as of which alerts last read it. A replica whose clock is behind reads it as of this time, or segments
    # that have ended would count again.
    Column("read_time", Time),
    # Whether a balance of the customer has a recharge policy, so that usage of others looks for none.
    Column("has_recharge_policy", Boolean, nullable=False, server_default=text("false")),
    Index("wallet_drawing", "organization_id", "customer_id", postgresql_where=text("draw_units <> '{}'")),
    Index("wallet_due", "due_time", postgresql_where=text("due_time IS NOT NULL")),
    info=lies(BY_CUSTOMER),
)

# Usage that no balance covered, since the customer first had a balance with drawdown in the unit.
overage = Table(
    "overage",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("customer_id", Identifier, primary_key=True),
    Column("unit", Identifier, primary_key=True),  # Unit.key: a currency or a metric
    Column("amount", Amount, nullable=False),
    Column("held", Amount, nullable=False, server_default="0"),  # of an amount below 0, by open reservations
    Column("update_time", Time, nullable=False),
    info=lies(BY_CUSTOMER),
)
