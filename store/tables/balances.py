"""Balances, their segments, and the ledger of their changes."""

from sqlalchemy import BigInteger, Boolean, Column, Identity, Index, Integer, Table, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from store.tables.base import Amount, Identifier, Organization, Time, metadata
from store.tables.placement import BY_CUSTOMER, lies

balance = Table(
    "balance",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("customer_id", Identifier, primary_key=True),
    Column("balance_id", Identifier, primary_key=True),
    Column("display_name", Text, nullable=False, server_default=""),
    Column("kind", Identifier, nullable=False),
    Column("currency", Identifier),  # exactly one of this and metric_id is set
    Column("metric_id", Identifier),
    Column("priority", Integer, nullable=False),
    Column("cost_basis", Amount),  # what the customer paid for each unit
    Column("contract_id", Identifier),
    Column("contract_custom_fields", JSONB, nullable=False),
    Column("custom_fields", JSONB, nullable=False),
    Column("credit_grant_type", Identifier),
    Column("seat_group_key", Identifier),
    Column("seat_group_value", Identifier),
    Column("license_type", Identifier),
    Column("draw_down", Boolean, nullable=False),
    Column("allow_overage", Boolean, nullable=False),
    Column("draw_down_metric_ids", ARRAY(Text(collation="C")), nullable=False),  # empty: every metric
    Column("void_time", Time),
    Column("as_of_time", Time, nullable=False),
    Column("create_time", Time, nullable=False),
    Column("update_time", Time, nullable=False),
    Index(
        "balance_by_seat",
        "organization_id",
        "customer_id",
        "seat_group_key",
        "seat_group_value",
        postgresql_where=text("seat_group_key IS NOT NULL"),
    ),
    Index("balance_of_metric", "organization_id", "metric_id", postgresql_where=text("metric_id IS NOT NULL")),
    # The balances on which usage of no seat can draw; without the entries of seat credits.
    Index(
        "balance_drawing",
        "organization_id",
        "customer_id",
        "balance_id",
        postgresql_where=text("draw_down AND void_time IS NULL AND seat_group_key IS NULL"),
    ),
    info=lies(BY_CUSTOMER),
)

balance_segment = Table(
    "balance_segment",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("customer_id", Identifier, primary_key=True),
    Column("balance_id", Identifier, primary_key=True),
    Column("segment_number", Integer, primary_key=True, autoincrement=False),
    Column("amount", Amount, nullable=False),  # as put
    Column("adjusted", Amount, nullable=False),  # the sum of the adjustments
    Column("topped_up", Amount, nullable=False, server_default="0"),  # the sum of those above 0
    Column("drawn", Amount, nullable=False),  # what usage drew
    Column("held", Amount, nullable=False, server_default="0"),  # by open reservations
    Column("start_time", Time, nullable=False),
    Column("end_time", Time),
    # The last put left it out. The row stays with its adjustments and drawdown, in case a later put contains it
    # again.
    Column("removed", Boolean, nullable=False),
    info=lies(BY_CUSTOMER),
)

balance_entry = Table(
    "balance_entry",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("customer_id", Identifier, primary_key=True),
    Column("balance_id", Identifier, primary_key=True),
    # Transactions that insert hold the customer's wallet, so a customer's numbers rise in the order of the commits.
    Column("entry_number", BigInteger, Identity(always=True), primary_key=True),
    Column("segment_number", Integer, nullable=False),
    Column("entry_type", Identifier, nullable=False),
    Column("amount", Amount, nullable=False),  # the change of what remains of the segment
    Column("remaining", Amount, nullable=False),  # after the change
    Column("adjustment_id", Identifier),
    Column("create_time", Time, nullable=False),
    # Of adjustments only: the adjustment's own fields, and what remained in all active segments of the unit.
    Column("custom_fields", JSONB),
    Column("customer_remaining", Amount),
    Index(
        "balance_entry_of_adjustment",
        "organization_id",
        "customer_id",
        "adjustment_id",
        "entry_number",
        postgresql_where=text("adjustment_id IS NOT NULL"),
    ),
    info=lies(BY_CUSTOMER),
)

# The adjustments as requested, to distinguish a retry from another request with the same id.
balance_adjustment = Table(
    "balance_adjustment",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("customer_id", Identifier, primary_key=True),
    Column("adjustment_id", Identifier, primary_key=True),
    Column("balance_id", Identifier, nullable=False),
    Column("amount", Amount, nullable=False),
    Column("requested_segment_number", Integer),  # unset: the caller named none
    Column("segment_number", Integer, nullable=False),
    Column("create_time", Time, nullable=False),
    Column("custom_fields", JSONB, nullable=False, server_default="{}"),
    info=lies(BY_CUSTOMER),
)

# The decrements as requested, which share their ids with the adjustments, and what they answered.
balance_decrement = Table(
    "balance_decrement",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("customer_id", Identifier, primary_key=True),
    Column("adjustment_id", Identifier, primary_key=True),
    Column("unit", Identifier, nullable=False),  # Unit.key
    Column("amount", Amount, nullable=False),
    Column("balance_ids", ARRAY(Text(collation="C")), nullable=False),  # sorted; empty: all
    Column("allow_overage", Boolean, nullable=False),
    Column("custom_fields", JSONB, nullable=False),
    Column("remaining", Amount, nullable=False),  # in all active segments of the unit, after it
    Column("overage", Amount, nullable=False),  # the part of the amount that no segment gave
    Column("create_time", Time, nullable=False),
    info=lies(BY_CUSTOMER),
)
