"""Wallets remember as of when what alerts read was last read."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Adds the time."""
    op.execute("ALTER TABLE wallet ADD COLUMN read_time timestamptz")
