"""The row by which a customer's balances and invoices are locked, and what usage took beyond them."""

from sqlalchemy import ARRAY, Column, Index, Table, Text, text

from store.tables.base import Amount, Identifier, Organization, Time, metadata

wallet = Table(
    "wallet",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("customer_id", Identifier, primary_key=True),
    # The units (Unit.key) that the customer has had balances in which usage draws on, and the properties that name
    # the seats among those.
    Column("draw_units", ARRAY(Text(collation="C")), nullable=False, server_default="{}"),
    Column("seat_keys", ARRAY(Text(collation="C")), nullable=False, server_default="{}"),
    # When the customer has to be looked at next although nobody sends anything; null: never.
    Column("due_time", Time),
    # As of when it was last looked at. Another replica's clock may be behind, and must not bring back what has ended.
    Column("read_time", Time),
    Index("wallet_drawing", "organization_id", "customer_id", postgresql_where=text("draw_units <> '{}'")),
    Index("wallet_due", "due_time", postgresql_where=text("due_time IS NOT NULL")),
)

# What usage took when no balance had anything left, since the customer first had one in that unit that it draws on.
overage = Table(
    "overage",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("customer_id", Identifier, primary_key=True),
    Column("unit", Identifier, primary_key=True),  # Unit.key: a currency or a metric
    Column("amount", Amount, nullable=False),
    Column("update_time", Time, nullable=False),
)
