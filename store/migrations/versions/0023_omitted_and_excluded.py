"""Lists of notifications that an answer to usage left out; and by which key an alert was disabled for a customer."""

from alembic import op

revision = "0023"
down_revision = "0022"
oldest_compatible = "0019"

_OMITTED = """
CREATE TABLE omitted_notifications (
    organization_id bigint NOT NULL,
    list_id text COLLATE "C" NOT NULL,
    notification_ids text[] NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (organization_id, list_id)
);
CREATE INDEX omitted_notifications_by_time ON omitted_notifications (create_time);
"""

# The default is for exclusions that the version before writes.
_EXCLUDED = """
ALTER TABLE alert_exclusion ADD COLUMN key_id text COLLATE "C" NOT NULL DEFAULT '';
CREATE INDEX alert_exclusion_by_alert
    ON alert_exclusion (organization_id, alert_id, customer_id, subscription_id);
"""


def upgrade() -> None:
    """Adds the table, the column and its index."""
    op.execute(_OMITTED)
    op.execute(_EXCLUDED)
