"""API keys get roles, a customer that they may be limited to, a name, and the times of expiry and last use.

A row may be the identity of a client certificate instead of a key.

The keys that exist are those of administrators, as before. The columns have constant defaults, so no row is written
and the table is locked for a moment only. A server of the previous version ignores roles, customers and expiry:
create limited keys only after all servers are of this version.
"""

from alembic import op

revision = "0035"
down_revision = "0034"
oldest_compatible = "0027"


def upgrade() -> None:
    """Adds the columns."""
    op.execute(
        """
        ALTER TABLE api_key
            ADD COLUMN roles text[] COLLATE "C" NOT NULL DEFAULT '{ADMIN}',
            ADD COLUMN customer_id text COLLATE "C",
            ADD COLUMN display_name text NOT NULL DEFAULT '',
            ADD COLUMN expire_time timestamptz,
            ADD COLUMN last_use_time timestamptz,
            ADD COLUMN identity text COLLATE "C"
        """
    )
