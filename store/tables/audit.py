"""The audit log of each organization: what changed, who changed it, and from where."""

from sqlalchemy import ARRAY, BigInteger, Boolean, Column, Identity, Index, LargeBinary, Table, Text, false, text

from store.tables.base import Identifier, Organization, Time, metadata
from store.tables.placement import COORDINATOR, COORDINATOR_ALONE, lies

audit_log = Table(
    "audit_log",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("last_number", BigInteger, nullable=False),  # the last number that is assigned
    Column("deleted_number", BigInteger, nullable=False, server_default="0"),  # entries up to it are deleted
    Column("high_time", Time, nullable=False),  # the latest create_time up to last_number
    info=lies(COORDINATOR_ALONE),
)

# The entries of one transaction, or a part of them, until they get their numbers.
audit_pending = Table(
    "audit_pending",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("arrival", BigInteger, Identity(always=True), primary_key=True),
    Column("create_time", Time, nullable=False),
    Column("entries", Text, nullable=False),  # a JSON array, see `store.audit.writing`
    info=lies(COORDINATOR),
)

# Partitioned by month of high_time. It never falls while the numbers rise, so the oldest partition has the entries
# with the lowest numbers of each organization. The times of several servers' clocks have no such order.
audit_entry = Table(
    "audit_entry",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("entry_number", BigInteger, primary_key=True, autoincrement=False),
    Column("high_time", Time, primary_key=True),  # the latest create_time up to this number
    Column("create_time", Time, nullable=False),
    Column("actor_kind", Identifier, nullable=False),
    Column("actor_id", Identifier, nullable=False),
    Column("actor_name", Text, nullable=False),
    Column("actor_identity", Identifier, nullable=False),
    Column("roles", ARRAY(Identifier), nullable=False),
    Column("method", Identifier, nullable=False),
    Column("peer", Text, nullable=False),
    Column("client_identity", Text, nullable=False),
    Column("user_agent", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("resource_type", Identifier, nullable=False),
    Column("resource_id", Identifier, nullable=False),
    Column("customer_id", Identifier),
    Column("before_state", LargeBinary),  # an AuditedResource of the contract, in binary form or as JSON
    Column("after_state", LargeBinary),
    Column("hidden_fields", ARRAY(Identifier), nullable=False),  # changed, and not shown by the states
    Column("abridged", Boolean, nullable=False),
    Column("erased", Boolean, nullable=False, server_default=false()),
    Index("audit_entry_by_time", "organization_id", "create_time", "entry_number"),
    Index("audit_entry_by_high_time", "organization_id", "high_time", "entry_number"),
    Index("audit_entry_by_actor", "organization_id", "actor_id", "create_time", "entry_number"),
    Index("audit_entry_by_resource", "organization_id", "resource_id", "create_time", "entry_number"),
    Index(
        "audit_entry_by_customer",
        "organization_id",
        "customer_id",
        "create_time",
        "entry_number",
        postgresql_where=text("customer_id IS NOT NULL"),
    ),
    postgresql_partition_by="RANGE (high_time)",
    info=lies(COORDINATOR_ALONE),
)
