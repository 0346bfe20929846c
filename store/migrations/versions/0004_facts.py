"""Customers' balances and invoices with the wallets that lock them, plans, limits, and times on a plan."""

from alembic import op

revision = "0004"
down_revision = "0003"

# Drawdown writes segments over and over; the spare room keeps their new versions on the same page.
_TABLES = """
ALTER TABLE customer
    ADD COLUMN plan_start_time timestamptz,
    ADD COLUMN plan_end_time timestamptz,
    ADD COLUMN custom_fields jsonb NOT NULL DEFAULT '{}';

ALTER TABLE subscription
    ADD COLUMN plan_start_time timestamptz,
    ADD COLUMN plan_end_time timestamptz,
    ADD COLUMN custom_fields jsonb NOT NULL DEFAULT '{}';

CREATE TABLE plan (
    organization_id bigint NOT NULL,
    plan_id text COLLATE "C" NOT NULL,
    display_name text NOT NULL,
    custom_fields jsonb NOT NULL,
    as_of_time timestamptz NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    changed_epoch bigint NOT NULL,
    PRIMARY KEY (organization_id, plan_id)
);

CREATE TABLE usage_limit (
    organization_id bigint NOT NULL,
    limit_id text COLLATE "C" NOT NULL,
    customer_id text COLLATE "C",
    plan_id text COLLATE "C",
    currency text COLLATE "C",
    metric_id text COLLATE "C",
    groups jsonb NOT NULL,
    natural_key text COLLATE "C" NOT NULL,
    amount numeric,
    as_of_time timestamptz NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    changed_epoch bigint NOT NULL,
    PRIMARY KEY (organization_id, limit_id),
    CONSTRAINT limit_has_one_holder CHECK (num_nonnulls(customer_id, plan_id) = 1),
    CONSTRAINT limit_is_of_one_unit CHECK (num_nonnulls(currency, metric_id) = 1)
);
CREATE UNIQUE INDEX limit_once ON usage_limit (organization_id, natural_key);

CREATE TABLE wallet (
    organization_id bigint NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (organization_id, customer_id)
);

CREATE TABLE invoice (
    organization_id bigint NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    invoice_id text COLLATE "C" NOT NULL,
    invoice_type text COLLATE "C",
    status text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    total numeric NOT NULL,
    period_start_time timestamptz,
    period_end_time timestamptz NOT NULL,
    custom_fields jsonb NOT NULL,
    contract_custom_fields jsonb NOT NULL,
    as_of_time timestamptz NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    PRIMARY KEY (organization_id, customer_id, invoice_id)
);

CREATE TABLE balance (
    organization_id bigint NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    balance_id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    currency text COLLATE "C",
    metric_id text COLLATE "C",
    priority integer NOT NULL,
    contract_id text COLLATE "C",
    contract_custom_fields jsonb NOT NULL,
    custom_fields jsonb NOT NULL,
    credit_grant_type text COLLATE "C",
    seat_group_key text COLLATE "C",
    seat_group_value text COLLATE "C",
    license_type text COLLATE "C",
    draw_down boolean NOT NULL,
    allow_overage boolean NOT NULL,
    draw_down_metric_ids text[] COLLATE "C" NOT NULL,
    void_time timestamptz,
    as_of_time timestamptz NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    PRIMARY KEY (organization_id, customer_id, balance_id),
    CONSTRAINT balance_is_held_in_one_unit CHECK (num_nonnulls(currency, metric_id) = 1)
);

CREATE TABLE balance_segment (
    organization_id bigint NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    balance_id text COLLATE "C" NOT NULL,
    segment_number integer NOT NULL,
    amount numeric NOT NULL,
    adjusted numeric NOT NULL,
    drawn numeric NOT NULL,
    start_time timestamptz NOT NULL,
    end_time timestamptz,
    removed boolean NOT NULL,
    PRIMARY KEY (organization_id, customer_id, balance_id, segment_number)
) WITH (fillfactor = 70);

CREATE TABLE balance_entry (
    organization_id bigint NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    balance_id text COLLATE "C" NOT NULL,
    entry_number bigint GENERATED ALWAYS AS IDENTITY,
    segment_number integer NOT NULL,
    entry_type text COLLATE "C" NOT NULL,
    amount numeric NOT NULL,
    remaining numeric NOT NULL,
    adjustment_id text COLLATE "C",
    create_time timestamptz NOT NULL,
    PRIMARY KEY (organization_id, customer_id, balance_id, entry_number)
);

CREATE TABLE balance_adjustment (
    organization_id bigint NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    adjustment_id text COLLATE "C" NOT NULL,
    balance_id text COLLATE "C" NOT NULL,
    amount numeric NOT NULL,
    requested_segment_number integer,
    segment_number integer NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (organization_id, customer_id, adjustment_id)
);
"""


def upgrade() -> None:
    """Creates the tables."""
    for statement in _TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
