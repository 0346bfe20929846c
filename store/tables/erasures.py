"""Erasure jobs, which delete everything of a customer."""

from sqlalchemy import BigInteger, Column, Index, Integer, Table, text

from store.tables.base import Identifier, Organization, Time, metadata
from store.tables.placement import EVERY_NODE, lies

erasure_job = Table(
    "erasure_job",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("job_id", Identifier, primary_key=True),
    # Only while the job runs: afterwards nothing says who the customer was.
    Column("customer_id", Identifier),
    Column("pseudonym", Identifier, nullable=False),  # the customer id of what is kept
    Column("state", Identifier, nullable=False),  # RUNNING, DONE
    Column("step", Integer, nullable=False, server_default="0"),  # the number of completed steps
    Column("deleted_count", BigInteger, nullable=False, server_default="0"),  # rows
    Column("pseudonymised_count", BigInteger, nullable=False, server_default="0"),  # rows
    Column("create_time", Time, nullable=False),
    Column("finish_time", Time),
    Index(
        "erasure_job_of_customer",
        "organization_id",
        "customer_id",
        unique=True,
        postgresql_where=text("customer_id IS NOT NULL"),
    ),
    Index("erasure_job_by_time", "organization_id", "create_time", "job_id"),
    Index("erasure_job_running", "create_time", postgresql_where=text("state = 'RUNNING'")),
    info=lies(EVERY_NODE),
)
