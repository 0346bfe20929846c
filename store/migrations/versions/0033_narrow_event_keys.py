"""Partitions of events that are empty get the narrow key of events.

Partitions that have events keep their primary key (organization_id, customer_id, event_id): both forms refuse the
same duplicates, and every statement finds the rows of both. So nothing is rebuilt, and no lock is held while anything
is read. From the next month on, all events have the narrow key; retention drops the last partition of the other form.

A server of the version before stores events in both forms, and creates partitions of the old form. It has no
conditions on the hashes of the key, so in partitions of the new form it finds duplicates and recounts more slowly.
"""

from alembic import op

revision = "0033"
down_revision = "0032"
oldest_compatible = "0027"
why_safe = "The partitions are empty, and both keys refuse the same duplicates."

_PARTITIONS = """
SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
WHERE inhparent = 'event'::regclass ORDER BY relname
"""

# One transaction for each partition, so that none is locked while this waits for another. A partition that cannot be
# locked soon keeps the key that it has.
_REPLACE_KEY = """
DO $$
BEGIN
    IF EXISTS (SELECT FROM {name}) THEN
        RETURN;
    END IF;
    SET LOCAL lock_timeout = '1s';
    LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE;
    IF NOT EXISTS (SELECT FROM {name}) THEN -- asked again: none was stored while this waited
        CREATE UNIQUE INDEX {name}_key ON {name} (
            ((hashtextextended(customer_id, organization_id) >> 32)::integer),
            ((((organization_id & 524287) << 12)
                | (hashtextextended(event_id, ~hashtextextended(customer_id, organization_id)) & 4095))::integer),
            (hashtextextended(event_id, hashtextextended(customer_id, organization_id)))
        );
        ALTER TABLE {name} DROP CONSTRAINT IF EXISTS {name}_pkey;
    END IF;
EXCEPTION WHEN lock_not_available OR deadlock_detected OR duplicate_table THEN
    NULL;
END
$$
"""


def upgrade() -> None:
    """Replaces the key of each empty partition."""
    names = op.get_bind().exec_driver_sql(_PARTITIONS).scalars().all()
    with op.get_context().autocommit_block():
        for name in names:
            op.execute(_REPLACE_KEY.format(name=name))
