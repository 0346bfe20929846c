"""How much usage organizations send at present."""

from sqlalchemy import BigInteger, Column, Double, Index, Table

from store.tables.base import Identifier, Organization, Time, metadata
from store.tables.placement import COORDINATOR_ALONE, lies

# What each process has counted in each interval. Rows are deleted after some minutes.
usage_activity = Table(
    "usage_activity",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("interval_start", Time, primary_key=True),
    Column("process_id", Identifier, primary_key=True),
    Column("events", BigInteger, nullable=False),
    Column("transitions", BigInteger, nullable=False),
    Column("wait_seconds", Double, nullable=False),  # of all its events together, until they were durable
    Index("usage_activity_by_time", "interval_start"),
    prefixes=["UNLOGGED"],
    info=lies(COORDINATOR_ALONE),
)
