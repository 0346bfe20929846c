"""Quotas of organizations, what processes use of them, and the number of an organization's alerts."""

from sqlalchemy import BigInteger, Column, Double, ForeignKey, Index, Table
from sqlalchemy.dialects.postgresql import JSONB

from store.tables.base import Identifier, Organization, Time, metadata
from store.tables.placement import COORDINATOR, COORDINATOR_ALONE, lies

organization_quota = Table(
    "organization_quota",
    metadata,
    Column("organization_id", Organization, ForeignKey("organization.organization_id"), primary_key=True),
    Column("quotas", JSONB, nullable=False),  # by kind; null: not limited; missing: the default of the processes
    Column("update_time", Time, nullable=False),  # by the database's clock
    Index("organization_quota_changed", "update_time"),
    info=lies(COORDINATOR),
)

# Of organizations that had a quota on alerts. Triggers on `alert` keep it; archived alerts are not counted.
alert_count = Table(
    "alert_count",
    metadata,
    Column("organization_id", Organization, ForeignKey("organization.organization_id"), primary_key=True),
    Column("alerts", BigInteger, nullable=False),
    info=lies(COORDINATOR),
)

# Written by each process about once a second. Rows that are older than a few seconds belong to processes that ended.
quota_use = Table(
    "quota_use",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("process_id", Identifier, primary_key=True),
    Column("streams", BigInteger, nullable=False),
    Column("watchers", BigInteger, nullable=False),
    Column("events_per_second", Double, nullable=False),
    Column("bytes_per_second", Double, nullable=False),
    Column("update_time", Time, nullable=False),  # by the database's clock
    prefixes=["UNLOGGED"],
    info=lies(COORDINATOR_ALONE),
)
