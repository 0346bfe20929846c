"""Customers' balances and invoices, and the wallets that lock them."""

from alembic import op

revision = "0004"
down_revision = "0003"

_TABLES = """
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
"""


def upgrade() -> None:
    """Creates the tables."""
    for statement in _TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
