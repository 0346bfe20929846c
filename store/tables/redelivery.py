"""Redelivery jobs, which send many notifications again."""

from sqlalchemy import ARRAY, BigInteger, Column, Index, Table, text

from store.tables.base import Identifier, Organization, Time, metadata
from store.tables.placement import COORDINATOR_ALONE, lies

redelivery_job = Table(
    "redelivery_job",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("job_id", Identifier, primary_key=True),
    Column("endpoint_id", Identifier, nullable=False),
    Column("kind", Identifier, nullable=False),  # RECOVERY or SELECTION
    Column("state", Identifier, nullable=False),  # RUNNING, DONE, STOPPED
    # It covers notifications (RECOVERY) or deliveries (SELECTION) that were created in [start_time, end_time).
    Column("start_time", Time, nullable=False),
    Column("end_time", Time, nullable=False),
    Column("statuses", ARRAY(Identifier), nullable=False),
    Column("event_type", Identifier),  # for versions that do not know event_types: the only one of them
    Column("event_types", ARRAY(Identifier), nullable=False, server_default="{}"),  # empty: every type
    Column("customer_id", Identifier),
    # The last row that was examined, by create_time and id.
    Column("after_time", Time),
    Column("after_id", Identifier),
    Column("examined_count", BigInteger, nullable=False, server_default="0"),
    Column("redelivered_count", BigInteger, nullable=False, server_default="0"),
    Column("create_time", Time, nullable=False),
    Column("finish_time", Time),
    Index("redelivery_job_by_time", "organization_id", "create_time", "job_id"),
    Index("redelivery_job_running", "create_time", postgresql_where=text("state = 'RUNNING'")),
    info=lies(COORDINATOR_ALONE),
)
