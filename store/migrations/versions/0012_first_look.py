"""Alerts remember whether they have been evaluated for all that existed before them."""

from alembic import op

revision = "0012"
down_revision = "0011"

# Of a disabled alert nothing says whether it had come to the end of its first look; it counts as not having.
_SINCE_THEN = """
ALTER TABLE alert ADD COLUMN looked boolean NOT NULL DEFAULT false;
UPDATE alert SET looked = true WHERE state = 'ACTIVE' AND visit_after IS NULL;
"""


def upgrade() -> None:
    """Adds the flag."""
    op.execute(_SINCE_THEN)
