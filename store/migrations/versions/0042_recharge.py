"""Recharge policies of balances, and the recharges that they request.

Only new tables, and a column with a constant default, for which no row is written. A server of the version before
draws on balances without looking at policies: what it leaves low is recharged after the next usage that this version
counts.
"""

from alembic import op

revision = "0042"
down_revision = "0041"
oldest_compatible = "0027"

_TABLES = """
CREATE TABLE recharge_policy (
    organization_id bigint NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    balance_id text COLLATE "C" NOT NULL,
    policy_id text COLLATE "C" NOT NULL,
    below numeric NOT NULL,
    up_to numeric,
    fixed_amount numeric,
    min_amount numeric NOT NULL,
    max_amount numeric,
    max_count integer,
    cooldown interval NOT NULL,
    failure_cooldown interval NOT NULL,
    max_attempts integer NOT NULL,
    report_timeout interval NOT NULL,
    as_of_time timestamptz NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    state text COLLATE "C" NOT NULL,
    disabled_reason text COLLATE "C",
    disable_time timestamptz,
    failed_attempts integer NOT NULL,
    last_sequence bigint NOT NULL,
    open_recharge_id text COLLATE "C",
    last_result text COLLATE "C",
    last_end_time timestamptz,
    wait_reason text COLLATE "C",
    wait_end_time timestamptz,
    due_time timestamptz,
    PRIMARY KEY (organization_id, customer_id, balance_id),
    CONSTRAINT recharge_policy_has_one_size CHECK (num_nonnulls(up_to, fixed_amount) = 1)
);

CREATE INDEX recharge_policy_due ON recharge_policy (due_time) WHERE due_time IS NOT NULL;

CREATE INDEX recharge_policy_disabled ON recharge_policy (organization_id, customer_id, balance_id)
    WHERE state = 'DISABLED';

CREATE TABLE recharge (
    organization_id bigint NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    recharge_id text COLLATE "C" NOT NULL,
    balance_id text COLLATE "C" NOT NULL,
    policy_id text COLLATE "C" NOT NULL,
    sequence bigint NOT NULL,
    state text COLLATE "C" NOT NULL,
    attempt integer NOT NULL,
    unit text COLLATE "C" NOT NULL,
    amount numeric NOT NULL,
    remaining numeric NOT NULL,
    create_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL,
    end_time timestamptz,
    cancel_reason text COLLATE "C",
    report_time timestamptz,
    paid_amount numeric,
    segment_number integer,
    requested_amount numeric,
    requested_segment_number integer,
    payment_reference text COLLATE "C",
    failure_message text,
    permanent boolean NOT NULL DEFAULT false,
    PRIMARY KEY (organization_id, customer_id, recharge_id)
);

CREATE INDEX recharge_by_time ON recharge (organization_id, create_time, recharge_id);

CREATE INDEX recharge_by_state ON recharge (organization_id, state, create_time, recharge_id);

CREATE INDEX recharge_of_customer ON recharge (organization_id, customer_id, create_time, recharge_id);

CREATE INDEX recharge_of_balance ON recharge (organization_id, customer_id, balance_id, create_time, recharge_id);

CREATE INDEX recharge_open ON recharge (create_time) WHERE state = 'REQUESTED';

ALTER TABLE wallet ADD COLUMN has_recharge_policy boolean NOT NULL DEFAULT false
"""


def upgrade() -> None:
    """Creates the tables and adds the column."""
    for statement in _TABLES.split(";\n"):
        op.execute(statement)
