"""Recharge policies of balances, and recharges. Who changes a row holds the wallet of its customer."""

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Index, Integer, Interval, Table, Text, text

from store.tables.base import Amount, Identifier, Organization, Time, metadata
from store.tables.placement import BY_CUSTOMER, lies

recharge_policy = Table(
    "recharge_policy",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("customer_id", Identifier, primary_key=True),
    Column("balance_id", Identifier, primary_key=True),
    # Drawn at random when the policy is first put: the ids of its recharges differ from those of a deleted policy.
    Column("policy_id", Identifier, nullable=False),
    Column("below", Amount, nullable=False),
    Column("up_to", Amount),  # exactly one of this and fixed_amount is set
    Column("fixed_amount", Amount),
    Column("min_amount", Amount, nullable=False),
    Column("max_amount", Amount),  # of one billing period; null: any
    Column("max_count", Integer),  # of one billing period; null: any
    Column("cooldown", Interval, nullable=False),
    Column("failure_cooldown", Interval, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("report_timeout", Interval, nullable=False),
    Column("as_of_time", Time, nullable=False),
    Column("create_time", Time, nullable=False),
    Column("update_time", Time, nullable=False),
    # From here on `evaluator.recharges.Standing`.
    Column("state", Identifier, nullable=False),
    Column("disabled_reason", Identifier),
    Column("disable_time", Time),
    Column("failed_attempts", Integer, nullable=False),
    Column("last_sequence", BigInteger, nullable=False),
    Column("open_recharge_id", Identifier),  # at most one recharge of a policy is open
    Column("last_result", Identifier),
    Column("last_end_time", Time),
    Column("wait_reason", Identifier),
    Column("wait_end_time", Time),
    Column("due_time", Time),  # the policy's timer; null: time alone changes nothing
    CheckConstraint("num_nonnulls(up_to, fixed_amount) = 1", name="recharge_policy_has_one_size"),
    Index("recharge_policy_due", "due_time", postgresql_where=text("due_time IS NOT NULL")),
    Index(
        "recharge_policy_disabled",
        "organization_id",
        "customer_id",
        "balance_id",
        postgresql_where=text("state = 'DISABLED'"),
    ),
    info=lies(BY_CUSTOMER),
)

recharge = Table(
    "recharge",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("customer_id", Identifier, primary_key=True),
    Column("recharge_id", Identifier, primary_key=True),  # a digest of policy and sequence
    Column("balance_id", Identifier, nullable=False),
    Column("policy_id", Identifier, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("state", Identifier, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("unit", Identifier, nullable=False),  # Unit.key of the balance
    Column("amount", Amount, nullable=False),
    Column("remaining", Amount, nullable=False),  # of the balance, at the request
    Column("create_time", Time, nullable=False),
    Column("expire_time", Time, nullable=False),
    Column("end_time", Time),
    Column("cancel_reason", Identifier),
    # The report. What applies, then what was requested, to distinguish a retry from another report.
    Column("report_time", Time),
    Column("paid_amount", Amount),
    Column("segment_number", Integer),
    Column("requested_amount", Amount),
    Column("requested_segment_number", Integer),
    Column("payment_reference", Identifier),
    Column("failure_message", Text),
    Column("permanent", Boolean, nullable=False, server_default=text("false")),
    Index("recharge_by_time", "organization_id", "create_time", "recharge_id"),
    Index("recharge_by_state", "organization_id", "state", "create_time", "recharge_id"),
    Index("recharge_of_customer", "organization_id", "customer_id", "create_time", "recharge_id"),
    Index("recharge_of_balance", "organization_id", "customer_id", "balance_id", "create_time", "recharge_id"),
    Index("recharge_open", "create_time", postgresql_where=text("state = 'REQUESTED'")),
    info=lies(BY_CUSTOMER),
)
