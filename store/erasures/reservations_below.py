"""The step of an erasure that forgets a customer in reservations of those that are, or were, below it.

What they hold of its meters goes, because these are deleted. Answers that show its limits are kept for repeated
requests, and show its pseudonym.
"""

from typing import Any

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.enforcement import reservation_locks, reservations
from store.erasures.jobs import ErasureJob, StepResult
from store.erasures.wallet_locks import lock_wallets
from store.postgres.database import driver

# Whether any reservation of another customer can name this one: it has a meter, which is deleted after this step, and
# it has or had customers below it. Most customers have not. Citus needs a column of each subquery.
_MAY_BE_NAMED = """
SELECT EXISTS (SELECT 1 FROM meter WHERE organization_id = :organization_id AND customer_id = :customer_id)
    AND EXISTS (
        SELECT 1 FROM customer c WHERE c.organization_id = :organization_id AND c.customer_id = :customer_id AND (
            c.below_change_time IS NOT NULL OR EXISTS (
                SELECT 1 FROM customer b
                WHERE b.organization_id = :organization_id AND b.parent_customer_id = :customer_id
            )
        )
    )
"""

# The customers below have changed since the reservations were made, so all of the organization are looked through, if
# the customer may be named at all.
_NAMING = f"""
({_MAY_BE_NAMED}) AND
organization_id = :organization_id AND (
    charges @> CAST(:charges AS jsonb)
    OR answer @> CAST(:limit_of AS jsonb) OR answer @> CAST(:over AS jsonb)
    OR settlement @> jsonb_build_object('decision', CAST(:limit_of AS jsonb))
    OR settlement @> jsonb_build_object('decision', CAST(:over AS jsonb))
)
"""
_FIND = text(f"SELECT customer_id, reservation_id FROM reservation WHERE {_NAMING} LIMIT :limit")
_WRITE = text("""
UPDATE reservation r SET charges = CAST(i.charges AS jsonb), answer = CAST(i.answer AS jsonb),
    settlement = CAST(i.settlement AS jsonb)
FROM unnest(
    CAST(:customer_ids AS text[]), CAST(:reservation_ids AS text[]), CAST(:charges AS text[]),
    CAST(:answers AS text[]), CAST(:settlements AS text[])
) AS i (customer_id, reservation_id, charges, answer, settlement)
WHERE r.organization_id = :organization_id AND r.customer_id = ANY(:customer_ids)
    AND r.customer_id = i.customer_id COLLATE "C" AND r.reservation_id = i.reservation_id COLLATE "C"
""")


async def forget_in_reservations(connection: AsyncConnection, job: ErasureJob, limit: int) -> StepResult:
    """Forgets the customer in reservations of others. No new one names it while the job runs."""
    customer_id, organization_id = job.customer_id, job.organization_id
    assert customer_id is not None, "a running job knows its customer"
    scope = {
        "organization_id": organization_id,
        "customer_id": customer_id,
        "charges": _json([[customer_id]]),
        "limit_of": _json({"limit": {"customer": customer_id}}),
        "over": _json({"over": [{"customer": customer_id}]}),
    }
    found = (await connection.execute(_FIND, {**scope, "limit": limit})).all()
    if not found:
        return StepResult(complete=True)
    # Reservations are changed by the holder of the wallet of their customer.
    await lock_wallets(connection, organization_id, {row.customer_id for row in found})
    raw = await driver(connection)
    keys = [(row.customer_id, row.reservation_id) for row in found]
    stored = await reservations.records(await reservation_locks.send_lock(raw, organization_id, keys))
    rows = [(*key, record.charges, record.answer, record.settlement) for key, record in stored.items()]
    written = {
        "organization_id": organization_id,
        "customer_ids": [row[0] for row in rows],
        "reservation_ids": [row[1] for row in rows],
        "charges": [_charges_without(customer_id, row[2]) for row in rows],
        "answers": [_decision_without(customer_id, job.pseudonym, row[3]) for row in rows],
        "settlements": [_settlement_without(customer_id, job.pseudonym, row[4]) for row in rows],
    }
    await connection.execute(_WRITE, written)
    return StepResult(pseudonymised=len(rows))


def _charges_without(customer_id: str, stored: str | None) -> str | None:
    if stored is None:
        return None
    left = [charge for charge in orjson.loads(stored) if charge[0] != customer_id]
    return _json(left) if left else None


def _decision_without(customer_id: str, pseudonym: str, stored: str | None) -> str | None:
    return None if stored is None else _json(_renamed(customer_id, pseudonym, orjson.loads(stored)))


def _settlement_without(customer_id: str, pseudonym: str, stored: str | None) -> str | None:
    if stored is None:
        return None
    settlement = orjson.loads(stored)
    settlement["decision"] = _renamed(customer_id, pseudonym, settlement["decision"])
    return _json(settlement)


def _renamed(customer_id: str, pseudonym: str, decision: dict[str, Any]) -> dict[str, Any]:
    """A decision, as `evaluator.enforcement.decision_json` stores it, with the pseudonym in the customer's limits.

    The caller has chosen the ids of these, so they can say who the customer was.
    """
    for limit in (decision.get("limit"), *decision.get("over", ())):
        if limit is not None and limit["customer"] == customer_id:
            limit["customer"] = limit["limit"] = pseudonym
    return decision


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
