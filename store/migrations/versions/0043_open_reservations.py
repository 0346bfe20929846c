"""The open reservations of a customer are found by an index.

Alerts that count what is held, and the views of gauges, add them up. Most reservations of a customer have ended.
"""

from alembic import op

revision = "0043"
down_revision = "0042"
oldest_compatible = "0027"
why_safe = "The table is created by 0041 of the same version, and is empty."


def upgrade() -> None:
    """Creates the index."""
    op.execute("CREATE INDEX reservation_open ON reservation (organization_id, customer_id) WHERE state = 'OPEN'")
