"""What usage draws on is found without reading the credits of a customer's seats."""

from alembic import op

revision = "0010"
down_revision = "0009"

_INDEX = """
CREATE INDEX balance_drawing ON balance (organization_id, customer_id, balance_id)
    WHERE draw_down AND void_time IS NULL AND seat_group_key IS NULL;
"""


def upgrade() -> None:
    """Creates the index."""
    op.execute(_INDEX)
