"""Quotas of organizations, what processes use of them, and a maintained number of alerts.

The number of an organization's alerts is kept by triggers, so that servers of the previous version keep it, too. An
organization without a row is not counted: the first creation under a quota counts its alerts and adds the row. The
triggers lock `alert` against writes for a moment.

`quota_use` is not logged: its rows are a few seconds old, and processes write them again.
"""

from alembic import op

revision = "0037"
down_revision = "0035"
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
    op.execute(
        """
        CREATE FUNCTION count_created_alerts() RETURNS trigger LANGUAGE plpgsql AS $body$
        BEGIN
            UPDATE alert_count c SET alerts = c.alerts + made.alerts
            FROM (
                SELECT organization_id, count(*) AS alerts FROM created WHERE state <> 'ARCHIVED' GROUP BY 1
            ) made
            WHERE c.organization_id = made.organization_id;
            RETURN NULL;
        END
        $body$;
        CREATE FUNCTION count_ended_alert() RETURNS trigger LANGUAGE plpgsql AS $body$
        BEGIN
            UPDATE alert_count SET alerts = alerts - 1 WHERE organization_id = OLD.organization_id;
            RETURN NULL;
        END
        $body$;
        CREATE TRIGGER alert_created AFTER INSERT ON alert REFERENCING NEW TABLE AS created
            FOR EACH STATEMENT EXECUTE FUNCTION count_created_alerts();
        CREATE TRIGGER alert_archived AFTER UPDATE OF state ON alert FOR EACH ROW
            WHEN (OLD.state <> 'ARCHIVED' AND NEW.state = 'ARCHIVED') EXECUTE FUNCTION count_ended_alert();
        CREATE TRIGGER alert_deleted AFTER DELETE ON alert FOR EACH ROW
            WHEN (OLD.state <> 'ARCHIVED') EXECUTE FUNCTION count_ended_alert();
        """
    )
