"""The feed: the order in which subscribers get notifications, and the indexes of their history."""

from alembic import op

revision = "0006"
down_revision = "0005"

_TABLES = """
CREATE TABLE feed (
    organization_id bigint NOT NULL PRIMARY KEY,
    last_place bigint NOT NULL,
    forgotten_place bigint NOT NULL DEFAULT 0,
    high_time timestamptz NOT NULL
);

CREATE TABLE feed_pending (
    organization_id bigint NOT NULL,
    arrival bigint GENERATED ALWAYS AS IDENTITY,
    customer_id text COLLATE "C" NOT NULL,
    notification_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (organization_id, arrival)
);

CREATE TABLE feed_entry (
    organization_id bigint NOT NULL,
    place bigint NOT NULL,
    notification_id text COLLATE "C" NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    alert_id text COLLATE "C" NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    condition_type text COLLATE "C" NOT NULL,
    create_time timestamptz NOT NULL,
    high_time timestamptz NOT NULL,
    PRIMARY KEY (organization_id, place)
);
"""

# What is there already is put in order of its times, except where clocks of several servers disagreed: of one gauge,
# the sequence decides. So each goes by the latest time that its gauge's alert had had until then.
_BACKFILL = """
INSERT INTO feed_entry (
    organization_id, place, notification_id, customer_id, alert_id, event_type, condition_type, create_time, high_time
)
SELECT organization_id, row_number() OVER in_order, notification_id, customer_id, alert_id, event_type,
       condition_type, create_time, max(create_time) OVER in_order
FROM (
    SELECT *, max(create_time) OVER (
        PARTITION BY organization_id, customer_id, gauge_id, alert_id ORDER BY sequence
    ) AS told_time
    FROM notification
) AS told
WINDOW in_order AS (PARTITION BY organization_id ORDER BY told_time, gauge_id, sequence, alert_id, notification_id)
"""

_COUNTERS = """
INSERT INTO feed (organization_id, last_place, high_time)
SELECT organization_id, max(place), max(high_time) FROM feed_entry GROUP BY organization_id
"""

_INDEXES = """
CREATE UNIQUE INDEX feed_entry_by_id ON feed_entry (organization_id, notification_id);
CREATE INDEX feed_entry_by_time ON feed_entry (organization_id, create_time, place);
CREATE INDEX feed_entry_by_customer ON feed_entry (organization_id, customer_id, create_time, place);
CREATE INDEX feed_entry_by_alert ON feed_entry (organization_id, alert_id, create_time, place);
CREATE INDEX feed_entry_by_high_time ON feed_entry (organization_id, high_time, place);
"""


def upgrade() -> None:
    """Creates the tables, and gives what is there already its place."""
    for statements in (_TABLES, _BACKFILL, _COUNTERS, _INDEXES):
        for statement in statements.split(";\n"):
            if statement.strip():
                op.execute(statement)
