"""When the custom fields of a customer's subscriptions last changed: alerts can select cost by them."""

from alembic import op

revision = "0024"
down_revision = "0023"
# An older server cannot read the definition of an alert whose scope is a customer on a plan.
oldest_compatible = "0024"

_COLUMN = """
ALTER TABLE customer ADD COLUMN contracts_change_time timestamptz;
"""


def upgrade() -> None:
    """Adds the column."""
    op.execute(_COLUMN)
