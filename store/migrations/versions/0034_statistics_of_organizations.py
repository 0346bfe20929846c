"""The planner takes tables of alerts and facts as shared by 100 organizations, whatever it finds in them.

While a table is small, each of its rows may have another organization. PostgreSQL then expects one row of any
organization, also after the table has grown, until it analyzes the table again. For such a plan all indexes that
begin with the organization are alike, and it may read all alerts of the organization to find those of one customer.
An organization that has a large part of the rows is counted by itself when a table is analyzed.

Each table is locked for a moment, against other changes of its definition and not against reads and writes. The next
ANALYZE of a table, which PostgreSQL makes by itself, uses the number.
"""

from alembic import op

revision = "0034"
down_revision = "0033"
oldest_compatible = "0027"

TABLES = (
    "alert",
    "alert_exclusion",
    "alert_state",
    "customer",
    "customer_name",
    "gauge",
    "subscription",
    "usage_limit",
)


def upgrade() -> None:
    """Sets the number of organizations."""
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ALTER COLUMN organization_id SET (n_distinct = 100)")
