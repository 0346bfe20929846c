"""How much usage organizations send at present: what each process has counted in intervals of ten seconds.

The table is not logged: its rows are needed for some minutes.
"""

from alembic import op

revision = "0048"
down_revision = "0044"
oldest_compatible = "0027"


def upgrade() -> None:
    """Creates the table."""
    op.execute(
        """
        CREATE UNLOGGED TABLE usage_activity (
            organization_id bigint NOT NULL,
            interval_start timestamptz NOT NULL,
            process_id text COLLATE "C" NOT NULL,
            events bigint NOT NULL,
            transitions bigint NOT NULL,
            wait_seconds double precision NOT NULL,
            PRIMARY KEY (organization_id, interval_start, process_id)
        );
        CREATE INDEX usage_activity_by_time ON usage_activity (interval_start);
        """
    )
