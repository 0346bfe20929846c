"""Erasure jobs, and the epoch of the last deletion of rules or facts."""

from alembic import op

revision = "0026"
down_revision = "0025"
# An older server would count usage of a customer that is being erased.
oldest_compatible = "0026"

_TABLE = """
ALTER TABLE organization ADD COLUMN deletion_epoch bigint NOT NULL DEFAULT 0;
CREATE TABLE erasure_job (
    organization_id bigint NOT NULL,
    job_id text COLLATE "C" NOT NULL,
    customer_id text COLLATE "C",
    pseudonym text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL,
    step integer NOT NULL DEFAULT 0,
    deleted_count bigint NOT NULL DEFAULT 0,
    pseudonymised_count bigint NOT NULL DEFAULT 0,
    create_time timestamptz NOT NULL,
    finish_time timestamptz,
    PRIMARY KEY (organization_id, job_id)
);
CREATE UNIQUE INDEX erasure_job_of_customer ON erasure_job (organization_id, customer_id)
    WHERE customer_id IS NOT NULL;
CREATE INDEX erasure_job_by_time ON erasure_job (organization_id, create_time, job_id);
CREATE INDEX erasure_job_running ON erasure_job (create_time) WHERE state = 'RUNNING';
"""


def upgrade() -> None:
    """Adds the table and the column."""
    op.execute(_TABLE)
