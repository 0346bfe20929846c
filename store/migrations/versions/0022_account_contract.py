"""Display names for subscriptions, limits, balances and invoices, and custom fields for metrics."""

from alembic import op

revision = "0022"
down_revision = "0019"
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


def upgrade() -> None:
    """Adds the columns."""
    op.execute(_COLUMNS)
