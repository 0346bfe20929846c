"""The schema says which older versions of Tidemark still run on it."""

from alembic import op

revision = "0019"
down_revision = "0018"
# The oldest revision whose code runs on the schema as this migration leaves it. `store.migrations.env` stores it.
oldest_compatible = "0019"

_TABLE = """
CREATE TABLE schema_compatibility (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    oldest_revision text COLLATE "C" NOT NULL
);
INSERT INTO schema_compatibility (oldest_revision) VALUES ('0019');
"""


def upgrade() -> None:
    """Adds the table and its row."""
    op.execute(_TABLE)
