"""The step of an erasure that ends reservations: what they hold of the customers above is given back to these."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.erasures.jobs import ErasureJob, StepResult
from store.erasures.wallet_locks import lock_wallets

_HELD_BY = text("""
SELECT reservation_id, ARRAY(SELECT charge ->> 0 FROM jsonb_array_elements(coalesce(charges, '[]')) AS charge)
FROM reservation
WHERE organization_id = :organization_id AND customer_id = :customer_id
ORDER BY reservation_id LIMIT :limit
""")

# Deletes reservations; what open ones hold of meters is given back. What they hold of balances is not: the ledger of
# the customer's balances is kept without its name, and nothing draws on them any more.
_DELETE = text("""
WITH gone AS (
    DELETE FROM reservation
    WHERE organization_id = :organization_id AND customer_id = :customer_id AND reservation_id = ANY(:reservation_ids)
    RETURNING state, charges
), held AS (
    SELECT charge ->> 0 AS customer_id, (charge ->> 1)::uuid AS meter_id, sum((charge ->> 2)::numeric) AS amount
    FROM gone CROSS JOIN jsonb_array_elements(charges) AS charge
    WHERE state = 'OPEN' AND charges IS NOT NULL
    GROUP BY 1, 2
), back AS (
    UPDATE meter m SET held = m.held - h.amount FROM held h
    WHERE m.organization_id = :organization_id AND m.customer_id = h.customer_id COLLATE "C"
        AND m.meter_id = h.meter_id
)
SELECT count(*) FROM gone
""")


async def end_reservations(connection: AsyncConnection, job: ErasureJob, limit: int) -> StepResult:
    """Ends and deletes the customer's reservations."""
    scope = {"organization_id": job.organization_id, "customer_id": job.customer_id}
    rows = (await connection.execute(_HELD_BY, {**scope, "limit": limit})).all()
    if not rows:
        return StepResult(complete=True)
    assert job.customer_id is not None, "a running job knows its customer"
    holders = {job.customer_id} | {holder for _, of_one in rows for holder in of_one}
    # Whatever holds a part of a meter has made the wallet of its customer.
    await lock_wallets(connection, job.organization_id, holders)
    ids = [reservation_id for reservation_id, _ in rows]
    return StepResult(deleted=int(await connection.scalar(_DELETE, {**scope, "reservation_ids": ids}) or 0))
