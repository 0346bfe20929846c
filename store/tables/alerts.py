"""Alert definitions with their history, states on gauges, exclusions and group counts."""

from sqlalchemy import BigInteger, Boolean, Column, Identity, Index, Table, Text, Uuid, literal_column, text
from sqlalchemy.dialects.postgresql import JSONB

from store.tables.base import Identifier, Organization, Time, metadata
from store.tables.placement import BY_CUSTOMER, COORDINATOR, lies

# The labels of an alert below the id of its organization, so that no two organizations share an entry of their index.
# Built as text, because PostgreSQL has no immutable function for it.
OWN_LABELS = """((((('{"' || organization_id::text) || '":') || labels::text) || '}')::jsonb)"""

alert = Table(
    "alert",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("alert_id", Identifier, primary_key=True),
    Column("name", Text, nullable=False),
    Column("state", Identifier, nullable=False),  # ACTIVE, DISABLED, ARCHIVED
    Column("scope", Identifier, nullable=False),  # ALL_CUSTOMERS, PLAN, CUSTOMER, SUBSCRIPTION, CUSTOMER_PLAN
    Column("plan_id", Identifier),
    Column("customer_id", Identifier),
    Column("subscription_id", Identifier),
    Column("condition_type", Identifier, nullable=False),
    Column("condition", JSONB, nullable=False),
    Column("thresholds", JSONB, nullable=False),
    Column("uniqueness_key", Identifier),
    Column("uniqueness_key_held", Boolean, nullable=False),
    Column("natural_key", Identifier),  # by which an alert on a subscription is unique; unset once it is archived
    Column("evaluate_on_create", Boolean, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("changed_epoch", BigInteger, nullable=False),  # of the organization, at the last change
    Column("watching_epoch", BigInteger, nullable=False),  # since then it watches without a gap
    Column("watching_time", Time, nullable=False),
    # The last customer of the backfill so far; unset when the backfill is complete.
    Column("visit_after", Identifier),
    # Whether a backfill of the active alert was ever completed.
    Column("looked", Boolean, nullable=False, server_default="false"),
    Column("create_time", Time, nullable=False),
    Column("update_time", Time, nullable=False),
    Column("archive_time", Time),
    Column("create_epoch", BigInteger, nullable=False, server_default="0"),  # of the organization, at the creation
    # The version of the last reset: states of earlier versions do not count.
    Column("reset_version", BigInteger, nullable=False, server_default="0"),
    Column("retired", JSONB, nullable=False, server_default="[]"),  # thresholds of earlier versions
    Column("labels", JSONB, nullable=False, server_default="{}"),
    Index(
        "alert_uniqueness_key",
        "organization_id",
        "uniqueness_key",
        unique=True,
        postgresql_where="uniqueness_key_held",
    ),
    Index(
        "alert_natural_key",
        "organization_id",
        "natural_key",
        unique=True,
        postgresql_where="natural_key IS NOT NULL",
    ),
    Index("alert_by_change", "organization_id", "changed_epoch"),
    Index("alert_wide_by_change", "organization_id", "changed_epoch", postgresql_where="customer_id IS NULL"),
    # Each list has an index with its filter before its order.
    Index("alert_by_state", "organization_id", "state", "create_time", "alert_id"),
    # Of all customers where the plan is empty.
    Index(
        "alert_wide_by_plan",
        "organization_id",
        text("(coalesce(plan_id, ''))"),
        "create_time",
        "alert_id",
        postgresql_where="customer_id IS NULL",
    ),
    Index(
        "alert_of_customer_by_age",
        "organization_id",
        "customer_id",
        "create_time",
        "alert_id",
        postgresql_where="customer_id IS NOT NULL",
    ),
    Index(
        "alert_of_plan_by_age",
        "organization_id",
        "plan_id",
        "create_time",
        "alert_id",
        postgresql_where="plan_id IS NOT NULL",
    ),
    Index(
        "alert_of_subscription",
        "organization_id",
        "subscription_id",
        "create_time",
        "alert_id",
        postgresql_where="subscription_id IS NOT NULL",
    ),
    Index(
        "alert_with_released_key",
        "organization_id",
        "uniqueness_key",
        "create_time",
        "alert_id",
        postgresql_where="uniqueness_key IS NOT NULL AND NOT uniqueness_key_held",
    ),
    Index(
        "alert_by_own_label",
        literal_column(OWN_LABELS).label("own_labels"),
        postgresql_using="gin",
        postgresql_ops={"own_labels": "jsonb_path_ops"},
        postgresql_where=text("labels <> '{}'::jsonb"),
    ),
    Index("alert_visiting", "organization_id", "alert_id", postgresql_where="visit_after IS NOT NULL"),
    info=lies(COORDINATOR),
)

# The history of definitions: each change, with the definition after it.
alert_change = Table(
    "alert_change",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("alert_id", Identifier, primary_key=True),
    Column("change_number", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Identifier, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("key_id", Identifier, nullable=False),  # of the API key of the call; empty if the call needed none
    Column("customer_id", Identifier),  # of a change for one customer of a wider alert
    Column("subscription_id", Identifier),
    Column("definition", JSONB, nullable=False),
    Column("change_time", Time, nullable=False),
    info=lies(COORDINATOR),
)

alert_state = Table(
    "alert_state",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("customer_id", Identifier, primary_key=True),
    Column("gauge_id", Uuid, primary_key=True),
    Column("alert_id", Identifier, primary_key=True),
    Column("alert_version", BigInteger, nullable=False),
    Column("reached", JSONB, nullable=False),  # {threshold key: {level, time, silent}}
    Column("sequence", BigInteger, nullable=False),
    Column("change_time", Time),
    Column("change_reason", Identifier),
    # Of the gauge; infinity if an older version, which does not know this column, wrote the state.
    Column("period_end", Time, nullable=False, server_default="infinity"),
    Index(
        "alert_state_in_alarm",
        "organization_id",
        "period_end",
        "change_time",
        "customer_id",
        "gauge_id",
        "alert_id",
        postgresql_where="reached <> '{}'::jsonb",
    ),
    info=lies(BY_CUSTOMER),
)

# Customers and subscriptions that an alert covers, but for which it is disabled.
alert_exclusion = Table(
    "alert_exclusion",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("customer_id", Identifier, primary_key=True),
    Column("alert_id", Identifier, primary_key=True),
    Column("subscription_id", Identifier, primary_key=True),  # empty: all of the customer
    Column("reason", Identifier, nullable=False),  # GROUP_LIMIT, REQUESTED
    Column("changed_epoch", BigInteger, nullable=False),  # of the organization, when it was stored
    Column("create_time", Time, nullable=False),
    Column("key_id", Identifier, nullable=False, server_default=""),  # of the caller that requested it
    Index("alert_exclusion_by_change", "organization_id", "changed_epoch"),
    Index("alert_exclusion_by_alert", "organization_id", "alert_id", "customer_id", "subscription_id"),
    info=lies(BY_CUSTOMER),
)

# How many groups an alert has had in a billing period.
group_count = Table(
    "group_count",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("customer_id", Identifier, primary_key=True),
    Column("alert_id", Identifier, primary_key=True),
    Column("subscription_id", Identifier, primary_key=True),  # empty: the alert measures the customer as a whole
    Column("period_start", Time, primary_key=True),
    Column("watching_epoch", BigInteger, nullable=False),  # watching_epoch of the alert when it counted
    Column("groups", BigInteger, nullable=False),
    info=lies(BY_CUSTOMER),
)
