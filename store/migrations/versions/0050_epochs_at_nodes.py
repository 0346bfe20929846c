"""The epochs of organizations, once more on each node of a cluster, for commits at the nodes of customers.

On one PostgreSQL the table stays empty.
"""

from alembic import op

revision = "0050"
down_revision = "0049"
oldest_compatible = "0027"


def upgrade() -> None:
    """Creates the table."""
    op.execute(
        """
        CREATE TABLE organization_epoch (
            organization_id bigint NOT NULL,
            customer_id text COLLATE "C" NOT NULL,
            epoch bigint NOT NULL,
            name text COLLATE "C" NOT NULL,
            PRIMARY KEY (organization_id, customer_id)
        )
        """
    )
