"""A table that each process writes to periodically, to check whether the database accepts writes."""

from sqlalchemy import Column, SmallInteger, Table

from store.tables.base import Time, metadata
from store.tables.placement import COORDINATOR_ALONE, lies

heartbeat = Table(
    "heartbeat",
    metadata,
    Column("slot", SmallInteger, primary_key=True, autoincrement=False),  # each process uses one of 64 at random
    Column("beat_time", Time, nullable=False),  # by the database's clock
    info=lies(COORDINATOR_ALONE),
)
