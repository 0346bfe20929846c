"""A table for the notifications that an answer to usage left out."""

from alembic import op

revision = "0023"
down_revision = "0019"

_TABLE = """
CREATE TABLE omitted_notifications (
    organization_id bigint NOT NULL,
    list_id text COLLATE "C" NOT NULL,
    notification_ids text[] NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (organization_id, list_id)
);
CREATE INDEX omitted_notifications_by_time ON omitted_notifications (create_time);
"""


def upgrade() -> None:
    """Adds the table."""
    op.execute(_TABLE)
