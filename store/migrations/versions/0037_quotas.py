"""Quotas of organizations, what processes use of them, and a maintained number of alerts.

The number of an organization's alerts is kept by triggers, so that servers of the previous version keep it, too. An
organization without a row is not counted: the first creation under a quota counts its alerts and adds the row. The
triggers lock `alert` against writes for a moment.

`quota_use` is not logged: its rows are a few seconds old, and processes write them again.
"""

from alembic import op

revision = "0037"
down_revision = "0036"
oldest_compatible = "0027"


def upgrade() -> None:
    """Creates the tables and the triggers."""
    op.execute(
        """
        CREATE TABLE organization_quota (
            organization_id bigint PRIMARY KEY REFERENCES organization,
            quotas jsonb NOT NULL,
            update_time timestamptz NOT NULL
        );
        CREATE INDEX organization_quota_changed ON organization_quota (update_time);
        CREATE TABLE alert_count (
            organization_id bigint PRIMARY KEY REFERENCES organization,
            alerts bigint NOT NULL
        );
        CREATE UNLOGGED TABLE quota_use (
            organization_id bigint NOT NULL,
            process_id text COLLATE "C" NOT NULL,
            streams bigint NOT NULL,
            watchers bigint NOT NULL,
            events_per_second double precision NOT NULL,
            bytes_per_second double precision NOT NULL,
            update_time timestamptz NOT NULL,
            PRIMARY KEY (organization_id, process_id)
        );
        """
    )
    # The statements of a change write many alerts each, so triggers for each row would update one row very often.
    for operation, rows in (
        ("INSERT", "SELECT organization_id, 1 AS change FROM after_rows WHERE state <> 'ARCHIVED'"),
        (
            "UPDATE",
            "SELECT organization_id, 1 AS change FROM after_rows WHERE state <> 'ARCHIVED'"
            " UNION ALL SELECT organization_id, -1 FROM before_rows WHERE state <> 'ARCHIVED'",
        ),
        ("DELETE", "SELECT organization_id, -1 AS change FROM before_rows WHERE state <> 'ARCHIVED'"),
    ):
        op.execute(_count_after(operation, rows))


def _count_after(operation: str, rows: str) -> str:
    """A trigger that adds the changes in `rows`, which read the transition tables of the statement."""
    name = f"count_alerts_after_{operation.lower()}"
    before = "" if operation == "INSERT" else "OLD TABLE AS before_rows "
    after = "" if operation == "DELETE" else "NEW TABLE AS after_rows "
    return f"""
        CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $body$
        BEGIN
            UPDATE alert_count c SET alerts = c.alerts + changed.alerts
            FROM (
                SELECT organization_id, sum(change) AS alerts FROM ({rows}) each_row
                GROUP BY organization_id HAVING sum(change) <> 0
            ) changed
            WHERE c.organization_id = changed.organization_id;
            RETURN NULL;
        END
        $body$;
        CREATE TRIGGER {name} AFTER {operation} ON alert REFERENCING {before}{after}
            FOR EACH STATEMENT EXECUTE FUNCTION {name}();
    """
