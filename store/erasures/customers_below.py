"""The customers directly below one that is erased: they keep everything of their own, and have no parent any more."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.audit import numbering
from store.audit.erasing import erase_parent
from store.erasures.jobs import ErasureJob, StepResult
from store.postgres import row_locks
from store.postgres.database import DriverConnection, driver
from store.postgres.distributed import on_cluster

CUSTOMERS_AT_ONCE = 500  # each with its entries of the audit log

# In the order of ids, in which puts lock customers too. Routers need no new epoch: no chain goes up to one that
# is being erased.
_CLEAR = text("""
WITH below AS MATERIALIZED (
    SELECT customer_id FROM customer
    WHERE organization_id = :organization_id AND parent_customer_id = :customer_id
    ORDER BY customer_id LIMIT :limit FOR UPDATE
)
UPDATE customer c SET parent_customer_id = NULL FROM below b
WHERE c.organization_id = :organization_id AND c.customer_id = b.customer_id
RETURNING c.customer_id
""")
# On a cluster: which customers these are, and the change of one of them.
_BELOW = b"""
SELECT customer_id FROM customer
WHERE organization_id = %(organization_id)s AND parent_customer_id = %(parent)s
ORDER BY customer_id LIMIT %(limit)s
"""
_CLEAR_ONE = b"""
UPDATE customer SET parent_customer_id = NULL
WHERE organization_id = %(organization_id)s AND customer_id = %(customer_id)s AND parent_customer_id = %(parent)s
RETURNING customer_id
"""


async def clear_parents(connection: AsyncConnection, job: ErasureJob, limit: int) -> StepResult:
    """Unsets the parent of the customers directly below, and erases it in their entries of the audit log.

    No put names the customer as a parent while the job runs. The transaction holds the organization's lock, shared:
    no put moves any customer meanwhile, which would lock those above it in another order.
    """
    assert job.customer_id is not None, "a running job knows its customer"
    if await numbering.assign_numbers(connection, job.organization_id):
        return StepResult()  # entries without a number are not found by their customer
    limit = min(limit, CUSTOMERS_AT_ONCE)
    raw = await driver(connection)
    if on_cluster(raw):
        below = await _clear_each(raw, job.organization_id, job.customer_id, limit)
    else:
        values = {"organization_id": job.organization_id, "customer_id": job.customer_id, "limit": limit}
        below = list(await connection.scalars(_CLEAR, values))
    if below:
        await erase_parent(connection, job.organization_id, below, job.customer_id)
    return StepResult(complete=not below)


async def _clear_each(raw: DriverConnection, organization_id: int, parent: str, limit: int) -> list[str]:
    scope = {"organization_id": organization_id, "parent": parent}
    cursor = await raw.execute(_BELOW, {**scope, "limit": limit})
    below = {row[0]: {**scope, "customer_id": row[0]} for row in await cursor.fetchall()}
    return [row[0] for row in await row_locks.rows(await row_locks.send_each(raw, _CLEAR_ONE, below))]
