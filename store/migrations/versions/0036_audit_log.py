"""The audit log: what changed, who changed it, and from where.

Only new tables. A server of the version before makes its changes without entries, so the log is complete from the
time when the last of them has stopped. Upkeep creates the partitions of `audit_entry`.
"""

from alembic import op

revision = "0036"
down_revision = "0035"
oldest_compatible = "0027"

# The entries of a transaction wait in a text that nothing searches. To compress it would cost the transaction more
# than the row.
_TABLES = """
CREATE TABLE audit_log (
    organization_id bigint NOT NULL PRIMARY KEY,
    last_number bigint NOT NULL,
    deleted_number bigint NOT NULL DEFAULT 0,
    high_time timestamptz NOT NULL
);

CREATE TABLE audit_pending (
    organization_id bigint NOT NULL,
    arrival bigint GENERATED ALWAYS AS IDENTITY,
    create_time timestamptz NOT NULL,
    entries text NOT NULL,
    PRIMARY KEY (organization_id, arrival)
);

ALTER TABLE audit_pending ALTER COLUMN entries SET STORAGE EXTERNAL;

CREATE TABLE audit_entry (
    organization_id bigint NOT NULL,
    entry_number bigint NOT NULL,
    high_time timestamptz NOT NULL,
    create_time timestamptz NOT NULL,
    actor_kind text COLLATE "C" NOT NULL,
    actor_id text COLLATE "C" NOT NULL,
    actor_name text NOT NULL,
    actor_identity text COLLATE "C" NOT NULL,
    roles text[] COLLATE "C" NOT NULL,
    method text COLLATE "C" NOT NULL,
    peer text NOT NULL,
    client_identity text NOT NULL,
    user_agent text NOT NULL,
    request_id text NOT NULL,
    resource_type text COLLATE "C" NOT NULL,
    resource_id text COLLATE "C" NOT NULL,
    customer_id text COLLATE "C",
    before_state bytea,
    after_state bytea,
    hidden_fields text[] COLLATE "C" NOT NULL,
    abridged boolean NOT NULL,
    erased boolean NOT NULL DEFAULT false,
    PRIMARY KEY (organization_id, entry_number, high_time)
) PARTITION BY RANGE (high_time);

CREATE INDEX audit_entry_by_time ON audit_entry (organization_id, create_time, entry_number);
CREATE INDEX audit_entry_by_high_time ON audit_entry (organization_id, high_time, entry_number);
CREATE INDEX audit_entry_by_actor ON audit_entry (organization_id, actor_id, create_time, entry_number);
CREATE INDEX audit_entry_by_resource ON audit_entry (organization_id, resource_id, create_time, entry_number);
CREATE INDEX audit_entry_by_customer ON audit_entry (organization_id, customer_id, create_time, entry_number)
    WHERE customer_id IS NOT NULL
"""


def upgrade() -> None:
    """Creates the tables."""
    for statement in _TABLES.split(";\n"):
        op.execute(statement)
