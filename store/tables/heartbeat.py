"""Where each process writes a sign of life, to learn whether the database takes writes."""

from sqlalchemy import Column, SmallInteger, Table

from store.tables.base import Time, metadata

heartbeat = Table(
    "heartbeat",
    metadata,
    Column("slot", SmallInteger, primary_key=True, autoincrement=False),  # a process picks one of a few at random
    Column("beat_time", Time, nullable=False),  # by the database's clock
)
