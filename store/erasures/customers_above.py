"""The customers above others learn that usage below them has come or gone, so that their meters are counted anew."""

from collections.abc import Collection
from datetime import datetime

from evaluator.routing_facts import MOST_LEVELS
from store.customers import levels
from store.postgres import row_locks
from store.postgres.database import DriverConnection
from store.postgres.distributed import on_cluster

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

# On a cluster, for each of them. The lock of the organization keeps puts from giving parents meanwhile.
_NOTE_ONE = b"""
UPDATE customer SET changed_epoch = %(epoch)s, below_change_time = %(now)s
WHERE organization_id = %(organization_id)s AND customer_id = %(customer_id)s
"""


async def note_change_below(
    connection: DriverConnection, organization_id: int, customer_ids: Collection[str], epoch: int, now: datetime
) -> None:
    """Gives customers, and all above them, this epoch and time: from now on other usage counts there.

    The transaction holds the organization's lock exclusively and has raised the epoch to this one.
    """
    if not customer_ids:
        return
    parameters = {"organization_id": organization_id, "epoch": epoch, "now": now}
    if on_cluster(connection):
        parents = await levels.above(connection, organization_id, customer_ids)
        noted = {*customer_ids, *parents.values()}
        await row_locks.send_each(connection, _NOTE_ONE, {one: {**parameters, "customer_id": one} for one in noted})
    else:
        await connection.execute(_NOTE_CHANGE.encode(), {**parameters, "ids": sorted(customer_ids)})
