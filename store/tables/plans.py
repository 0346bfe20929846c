"""Plans and limits."""

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from store.tables.base import Amount, Identifier, Organization, Time, metadata
from store.tables.placement import COORDINATOR, EVERY_NODE, lies

plan = Table(
    "plan",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("plan_id", Identifier, primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("custom_fields", JSONB, nullable=False),
    Column("as_of_time", Time, nullable=False),
    Column("create_time", Time, nullable=False),
    Column("update_time", Time, nullable=False),
    Column("changed_epoch", BigInteger, nullable=False),
    info=lies(COORDINATOR),
)

# `limit` is a word of SQL.
usage_limit = Table(
    "usage_limit",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("limit_id", Identifier, primary_key=True),
    Column("display_name", Text, nullable=False, server_default=""),
    Column("customer_id", Identifier),  # exactly one of this and the next is set
    Column("plan_id", Identifier),
    Column("currency", Identifier),  # exactly one of this and the next is set
    Column("metric_id", Identifier),
    Column("groups", JSONB, nullable=False),  # [[key, value or null], …] by key
    Column("window_kind", Identifier),  # `evaluator.limit_windows.WindowKind`; unset: the billing period
    Column("window_minutes", Integer),  # of a rolling window only
    Column("natural_key", Identifier, nullable=False),  # a digest of the seven above
    Column("amount", Amount),  # unset: no limit
    Column("enforcement", Identifier, nullable=False, server_default="NONE"),  # NONE, SOFT, HARD
    # The row stays, with an id that no caller can choose, so that routers read that the limit has no amount any more.
    Column("deleted", Boolean, nullable=False, server_default="false"),
    Column("as_of_time", Time, nullable=False),
    Column("create_time", Time, nullable=False),
    Column("update_time", Time, nullable=False),
    Column("changed_epoch", BigInteger, nullable=False),
    # When it last began or ended to be enforced, to count nothing, or to exist; they hold if `enforced_as_of` is
    # `changed_epoch`. Otherwise, or unset: at the last change of the row.
    Column("enforced_epoch", BigInteger),
    Column("enforced_time", Time),
    Column("enforced_as_of", BigInteger),
    Index("limit_once", "organization_id", "natural_key", unique=True),
    Index("limit_of_customer", "organization_id", "customer_id", postgresql_where="customer_id IS NOT NULL"),
    Index("limit_of_plan", "organization_id", "plan_id", postgresql_where="plan_id IS NOT NULL"),
    Index("limit_of_metric", "organization_id", "metric_id", postgresql_where="metric_id IS NOT NULL"),
    Index("limit_of_currency", "organization_id", "currency", postgresql_where="currency IS NOT NULL"),
    Index("limit_by_change", "organization_id", "changed_epoch"),
    info=lies(EVERY_NODE),
)
