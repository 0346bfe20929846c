"""What accounts gain: display names, decrements of several balances, more ids, and deletions."""

from alembic import op

revision = "0022"
down_revision = "0021"
# The oldest revision whose code runs on the schema as this migration leaves it.
oldest_compatible = "0019"

# The defaults let servers of the previous version insert rows.
_COLUMNS = """
ALTER TABLE subscription ADD COLUMN display_name text NOT NULL DEFAULT '';
ALTER TABLE usage_limit ADD COLUMN display_name text NOT NULL DEFAULT '';
ALTER TABLE balance ADD COLUMN display_name text NOT NULL DEFAULT '';
ALTER TABLE invoice ADD COLUMN display_name text NOT NULL DEFAULT '';
ALTER TABLE metric ADD COLUMN custom_fields jsonb NOT NULL DEFAULT '{}';
"""

_DECREMENTS = """
ALTER TABLE balance ADD COLUMN cost_basis numeric;
ALTER TABLE balance_entry ADD COLUMN custom_fields jsonb, ADD COLUMN customer_remaining numeric;
CREATE INDEX balance_entry_of_adjustment ON balance_entry (organization_id, customer_id, adjustment_id, entry_number)
    WHERE adjustment_id IS NOT NULL;
ALTER TABLE balance_adjustment ADD COLUMN custom_fields jsonb NOT NULL DEFAULT '{}';
CREATE TABLE balance_decrement (
    organization_id bigint NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    adjustment_id text COLLATE "C" NOT NULL,
    unit text COLLATE "C" NOT NULL,
    amount numeric NOT NULL,
    balance_ids text[] COLLATE "C" NOT NULL,
    allow_overage boolean NOT NULL,
    custom_fields jsonb NOT NULL,
    remaining numeric NOT NULL,
    overage numeric NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (organization_id, customer_id, adjustment_id)
);
"""

_NAMES = """
ALTER TABLE customer ADD COLUMN external_id text COLLATE "C";
ALTER TABLE customer ADD COLUMN aliases text[] COLLATE "C" NOT NULL DEFAULT '{}';
CREATE TABLE customer_name (
    organization_id bigint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (organization_id, kind, name)
);
CREATE INDEX customer_name_of_customer ON customer_name (organization_id, customer_id);
CREATE INDEX subscription_by_id ON subscription (organization_id, subscription_id, customer_id);
"""

_DELETIONS = """
CREATE TABLE fact_deletion (
    organization_id bigint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    fact_id text COLLATE "C" NOT NULL,
    changed_epoch bigint NOT NULL,
    PRIMARY KEY (organization_id, kind, customer_id, fact_id)
);
CREATE INDEX fact_deletion_by_change ON fact_deletion (organization_id, changed_epoch);
ALTER TABLE usage_limit ADD COLUMN deleted boolean NOT NULL DEFAULT false;
CREATE INDEX balance_of_metric ON balance (organization_id, metric_id) WHERE metric_id IS NOT NULL;
CREATE INDEX alert_of_plan ON alert (organization_id, plan_id) WHERE plan_id IS NOT NULL;
"""


def upgrade() -> None:
    """Adds the columns and tables."""
    op.execute(_COLUMNS)
    op.execute(_DECREMENTS)
    op.execute(_NAMES)
    op.execute(_DELETIONS)
