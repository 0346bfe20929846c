"""The customers above others learn that usage below them has come or gone, so that their meters are counted anew."""

from collections.abc import Collection
from datetime import datetime

from evaluator.routing_facts import MOST_LEVELS
from store.postgres.database import DriverConnection

# Locked in the order of ids, as puts lock customers.
_NOTE_CHANGE = f"""
WITH RECURSIVE above (customer_id, level) AS (
    SELECT id COLLATE "C", 1 FROM unnest(%(ids)s::text[]) AS i (id)
    UNION
    SELECT c.parent_customer_id, level + 1 FROM above a JOIN customer c
        ON c.organization_id = %(organization_id)s AND c.customer_id = a.customer_id
    WHERE c.parent_customer_id IS NOT NULL AND level < {MOST_LEVELS}
), locked AS MATERIALIZED (
    SELECT customer_id FROM customer
    WHERE organization_id = %(organization_id)s AND customer_id IN (SELECT customer_id FROM above)
    ORDER BY customer_id FOR UPDATE
)
UPDATE customer c SET changed_epoch = %(epoch)s, below_change_time = %(now)s FROM locked l
WHERE c.organization_id = %(organization_id)s AND c.customer_id = l.customer_id
"""


async def note_change_below(
    connection: DriverConnection, organization_id: int, customer_ids: Collection[str], epoch: int, now: datetime
) -> None:
    """Gives customers, and all above them, this epoch and time: from now on other usage counts there.

    The transaction holds the organization's lock exclusively and has raised the epoch to this one.
    """
    if customer_ids:
        await connection.execute(
            _NOTE_CHANGE.encode(),
            {"organization_id": organization_id, "ids": sorted(customer_ids), "epoch": epoch, "now": now},
        )
