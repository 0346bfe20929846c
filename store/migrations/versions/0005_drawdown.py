"""What drawing on balances and the passing of time need: wallets that say when they are due, overage, scales."""

from alembic import op

revision = "0005"
down_revision = "0004"

_TABLES = """
ALTER TABLE wallet
    ADD COLUMN draw_units text[] COLLATE "C" NOT NULL DEFAULT '{}',
    ADD COLUMN seat_keys text[] COLLATE "C" NOT NULL DEFAULT '{}',
    ADD COLUMN due_time timestamptz;

CREATE INDEX wallet_drawing ON wallet (organization_id, customer_id) WHERE draw_units <> '{}';
CREATE INDEX wallet_due ON wallet (due_time) WHERE due_time IS NOT NULL;

ALTER TABLE gauge ADD COLUMN scale numeric;

ALTER TABLE balance_segment ADD COLUMN topped_up numeric NOT NULL DEFAULT 0;
UPDATE balance_segment SET topped_up = adjusted WHERE adjusted > 0;

CREATE INDEX balance_by_seat ON balance (organization_id, customer_id, seat_group_key, seat_group_value)
    WHERE seat_group_key IS NOT NULL;

CREATE TABLE overage (
    organization_id bigint NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    unit text COLLATE "C" NOT NULL,
    amount numeric NOT NULL,
    update_time timestamptz NOT NULL,
    PRIMARY KEY (organization_id, customer_id, unit)
);
"""


def upgrade() -> None:
    """Adds to wallets and gauges, and creates the table of overage."""
    op.execute(_TABLES)
