"""Organizations, their API keys, idempotent answers, and their customers, subscriptions and metrics."""

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Identity, Index, Integer, LargeBinary, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from store.tables.base import Identifier, Organization, Time, metadata
from store.tables.placement import BY_CUSTOMER, COORDINATOR, EVERY_NODE, lies

organization = Table(
    "organization",
    metadata,
    Column("organization_id", Organization, Identity(always=True), primary_key=True),
    Column("name", Identifier, nullable=False, unique=True),
    Column("epoch", BigInteger, nullable=False, server_default="0"),
    Column(
        "deletion_epoch", BigInteger, nullable=False, server_default="0"
    ),  # of the last deletion of rules or facts
    Column("create_time", Time, nullable=False),
    info=lies(COORDINATOR),
)

# The epoch and the name of an organization, once more on each node of a cluster: commits at a node read them there.
# One row for each shard of `customer`; its customer_id is no customer's, it only decides the shard. On one PostgreSQL
# the table is empty.
organization_epoch = Table(
    "organization_epoch",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("customer_id", Identifier, primary_key=True),  # see `store.identity.node_epochs`
    Column("epoch", BigInteger, nullable=False),  # as in organization
    Column("name", Identifier, nullable=False),  # as in organization
    info=lies(BY_CUSTOMER),
)

api_key = Table(
    "api_key",
    metadata,
    Column("key_hash", LargeBinary, primary_key=True),  # SHA-256 of the key
    Column("key_id", Identifier, nullable=False, unique=True),
    Column("organization_id", Organization, ForeignKey("organization.organization_id"), nullable=False),
    Column("create_time", Time, nullable=False),
    Column("revoke_time", Time),
    Column("roles", ARRAY(Text(collation="C")), nullable=False, server_default="{ADMIN}"),
    Column("customer_id", Identifier),  # the only one that the key may read; NULL: all
    Column("display_name", Text, nullable=False, server_default=""),
    Column("expire_time", Time),
    Column("last_use_time", Time),  # written about once a minute
    Column("identity", Identifier),  # of a client certificate; then key_hash is its hash, and there is no key
    info=lies(COORDINATOR),
)

# Answers to requests with a request id: a retry gets the same answer.
request = Table(
    "request",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("method", Identifier, primary_key=True),
    Column("request_id", Identifier, primary_key=True),
    Column("payload_digest", LargeBinary, nullable=False),
    Column("response", LargeBinary, nullable=False),
    Column("create_time", Time, nullable=False),
    info=lies(COORDINATOR),
)

customer = Table(
    "customer",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("customer_id", Identifier, primary_key=True),
    Column("display_name", Text, nullable=False, server_default=""),
    Column("external_id", Identifier),
    Column("aliases", ARRAY(Text(collation="C")), nullable=False, server_default="{}"),
    Column("plan_id", Identifier),
    Column("plan_start_time", Time),
    Column("plan_end_time", Time),
    Column("currency", Identifier, nullable=False, server_default="USD"),
    Column("anchor_time", Time, nullable=False),
    Column("cadence", Identifier, nullable=False),
    Column("interval_count", Integer, nullable=False),
    Column("time_zone", Identifier, nullable=False),
    Column("custom_fields", JSONB, nullable=False, server_default="{}"),
    Column("as_of_time", Time),  # unset: registered implicitly, so that any fact is newer
    Column("create_time", Time, nullable=False),
    Column("update_time", Time, nullable=False),
    Column("changed_epoch", BigInteger, nullable=False),
    Column("contracts_change_time", Time),  # when the custom fields of one of its subscriptions last changed
    Column("parent_customer_id", Identifier),  # the customer directly above
    Column("below_change_time", Time),  # when a customer below was last moved or erased
    Index("customer_by_change", "organization_id", "changed_epoch"),
    Index(
        "customer_of_plan",
        "organization_id",
        "plan_id",
        "customer_id",
        postgresql_where="plan_id IS NOT NULL",
    ),
    Index(
        "customer_of_parent",
        "organization_id",
        "parent_customer_id",
        "customer_id",
        postgresql_where="parent_customer_id IS NOT NULL",
    ),
    info=lies(BY_CUSTOMER),
)

# The external ids and aliases of customers. A table of its own, because they are unique across customers, and the
# table of customers must not have a unique rule across its rows.
customer_name = Table(
    "customer_name",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("kind", Identifier, primary_key=True),  # EXTERNAL_ID, ALIAS
    Column("name", Identifier, primary_key=True),
    Column("customer_id", Identifier, nullable=False),
    Index("customer_name_of_customer", "organization_id", "customer_id"),
    info=lies(COORDINATOR),
)

subscription = Table(
    "subscription",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("customer_id", Identifier, primary_key=True),
    Column("subscription_id", Identifier, primary_key=True),
    Column("display_name", Text, nullable=False, server_default=""),
    Column("plan_id", Identifier),
    Column("plan_start_time", Time),
    Column("plan_end_time", Time),
    Column("currency", Identifier),  # unset: the customer's
    Column("anchor_time", Time),  # unset, like the next three: the customer's billing cycle
    Column("cadence", Identifier),
    Column("interval_count", Integer),
    Column("time_zone", Identifier),
    Column("start_time", Time),
    Column("end_time", Time),
    Column("custom_fields", JSONB, nullable=False, server_default="{}"),
    Column("as_of_time", Time),
    Column("create_time", Time, nullable=False),
    Column("update_time", Time, nullable=False),
    Column("changed_epoch", BigInteger, nullable=False),
    Index("subscription_by_change", "organization_id", "changed_epoch"),
    Index("subscription_by_id", "organization_id", "subscription_id", "customer_id"),
    Index(
        "subscription_of_plan",
        "organization_id",
        "plan_id",
        "customer_id",
        "subscription_id",
        postgresql_where="plan_id IS NOT NULL",
    ),
    info=lies(BY_CUSTOMER),
)

# Subscriptions and metrics that are being deleted, or were. See store/accounts/deletions.py.
fact_deletion = Table(
    "fact_deletion",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("kind", Identifier, primary_key=True),  # SUBSCRIPTION, METRIC
    Column("customer_id", Identifier, primary_key=True),  # empty for a metric
    Column("fact_id", Identifier, primary_key=True),
    Column("changed_epoch", BigInteger, nullable=False),
    Index("fact_deletion_by_change", "organization_id", "changed_epoch"),
    info=lies(EVERY_NODE),
)

# Customers whose facts, limits or alerts have changed, and whose alerts are not evaluated on the change yet.
customer_evaluation = Table(
    "customer_evaluation",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("customer_id", Identifier, primary_key=True),
    Column("facts", Boolean, nullable=False),  # alerts on facts are to be evaluated
    Column("usage", Boolean, nullable=False),  # alerts on usage
    Column("subscriptions", Boolean, nullable=False),  # alerts on usage of subscriptions
    # The keys of units in which a limit has changed: alerts with percentages of it.
    Column("limit_units", ARRAY(Text(collation="C")), nullable=False),
    # Alerts that were enabled for the customer.
    Column("alert_ids", ARRAY(Text(collation="C")), nullable=False, server_default="{}"),
    Column("epoch", BigInteger, nullable=False),  # of the organization, at the last change
    Column("change_time", Time, nullable=False),  # of the last change
    Column("due_time", Time, nullable=False),  # from then on any process evaluates it
    Index("customer_evaluation_due", "organization_id", "due_time"),
    info=lies(COORDINATOR),
)

metric = Table(
    "metric",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("metric_id", Identifier, primary_key=True),
    Column("display_name", Text, nullable=False, server_default=""),
    Column("aggregation", Identifier, nullable=False),
    Column("unique_property", Identifier),  # UNIQUE_COUNT counts its distinct values
    Column("custom_fields", JSONB, nullable=False, server_default="{}"),
    Column("as_of_time", Time),
    Column("create_time", Time, nullable=False),
    Column("update_time", Time, nullable=False),
    Column("changed_epoch", BigInteger, nullable=False),
    Column("event_name", Identifier),  # of the raw events that count in it
    Column("event_filters", JSONB, nullable=False, server_default="[]"),  # which of them do
    Column("quantity_property", Identifier),  # has their amounts
    Column("create_epoch", BigInteger),  # of the organization, when a put created it; unset: usage did
    # The last alert on the metric, by id, whose backfill has begun; unset when all have. See store/alerts.
    Column("backfill_after", Identifier),
    Index("metric_by_change", "organization_id", "changed_epoch"),
    Index("metric_with_event_name", "organization_id", postgresql_where="event_name IS NOT NULL"),
    Index("metric_backfilling", "organization_id", "metric_id", postgresql_where="backfill_after IS NOT NULL"),
    info=lies(COORDINATOR),
)
