"""The triggers that count alerts work on a cluster, too.

Citus plans each statement that names one of its tables, and cannot plan one that reads the transition tables of a
trigger. So the changes are read first, and `alert_count` is changed by a statement for each organization, in their
order; a statement on `alert` changes those of one organization, except in operators' own statements.
"""

from alembic import op

revision = "0049"
down_revision = "0048"
oldest_compatible = "0027"

_ADDED = "SELECT organization_id, 1 AS change FROM after_rows WHERE state <> 'ARCHIVED'"
_REMOVED = "SELECT organization_id, -1 AS change FROM before_rows WHERE state <> 'ARCHIVED'"


def upgrade() -> None:
    """Replaces the bodies of the functions."""
    for operation, rows in (("insert", _ADDED), ("update", f"{_ADDED} UNION ALL {_REMOVED}"), ("delete", _REMOVED)):
        op.execute(
            f"""
            CREATE OR REPLACE FUNCTION count_alerts_after_{operation}() RETURNS trigger LANGUAGE plpgsql AS $body$
            DECLARE changed record;
            BEGIN
                FOR changed IN
                    SELECT organization_id, sum(change) AS alerts FROM ({rows}) each_row
                    GROUP BY organization_id HAVING sum(change) <> 0 ORDER BY organization_id
                LOOP
                    UPDATE alert_count SET alerts = alerts + changed.alerts
                    WHERE organization_id = changed.organization_id;
                END LOOP;
                RETURN NULL;
            END
            $body$
            """
        )
