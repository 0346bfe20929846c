"""Leases that end without an attempt: claims given back, leases that ran out, and orphans."""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.deliveries.claims import Claim
from store.deliveries.finishing import MICROSECOND, read_ended, send_endings
from store.deliveries.queue import SETTINGS
from store.postgres.channels import announce_due_deliveries
from store.postgres.database import driver
from webhooks.deliveries import DeliveryStatus

RELEASE_LIMIT = 500  # leases given back in one transaction

_EXPIRED = text("""
SELECT organization_id, delivery_id, endpoint_id, lease_token
FROM delivery_live
WHERE lease_token IS NOT NULL AND lease_expire_time < now()
ORDER BY lease_expire_time
LIMIT :limit
""")

# Reads every leased row, since no index has the tokens. The order is that of the index of leased rows, as in
# _EXPIRED: the planner can choose no other index.
_LEASED = text("""
SELECT organization_id, delivery_id, endpoint_id, lease_token
FROM delivery_live
WHERE lease_token IS NOT NULL
  AND lease_token >= :first_token AND lease_token < :end_token
  AND lease_token <> ALL (CAST(:open_tokens AS uuid[]))
ORDER BY lease_expire_time
""")


@dataclass(frozen=True)
class Holdings:
    """The leases that a notifier knows of.

    Its tokens are those from `first_token` to before `end_token`. open_tokens: of claims that are being made.
    claims: those whose result is not written.
    """

    first_token: uuid.UUID
    end_token: uuid.UUID
    open_tokens: Collection[uuid.UUID]
    claims: Collection[Claim]


async def release(connection: AsyncConnection, claims: Sequence[Claim], *, delay: timedelta) -> int:
    """Gives claimed deliveries back without an attempt, due again after `delay`; returns how many."""
    number = await _give_back(connection, [_lease(claim) for claim in claims], delay)
    if number and not delay:
        await announce_due_deliveries(connection)
    return number


async def release_expired(connection: AsyncConnection) -> int:
    """Makes deliveries due again whose lease ran out because their notifier died or was paused; returns how many."""
    await connection.execute(text(SETTINGS))
    rows = await connection.execute(_EXPIRED, {"limit": RELEASE_LIMIT})
    return await _give_back_all(connection, [_Lease(*row) for row in rows])


async def release_orphaned(connection: AsyncConnection, holdings: Holdings) -> int:
    """Makes deliveries due again that are leased under a notifier's tokens, but that the notifier does not know.

    Returns how many, at most RELEASE_LIMIT.
    """
    await connection.execute(text(SETTINGS))
    rows = await connection.execute(
        _LEASED,
        {
            "first_token": holdings.first_token,
            "end_token": holdings.end_token,
            "open_tokens": list(holdings.open_tokens),
        },
    )
    known = {_lease(claim) for claim in holdings.claims}
    orphaned = [lease for row in rows if (lease := _Lease(*row)) not in known]
    number = await _give_back_all(connection, orphaned[:RELEASE_LIMIT])
    if number:
        await announce_due_deliveries(connection)
    return number


class _Lease(NamedTuple):
    """What identifies a lease."""

    organization_id: int
    delivery_id: str
    endpoint_id: str
    lease_token: uuid.UUID


def _lease(claim: Claim) -> _Lease:
    return _Lease(claim.organization_id, claim.delivery_id, claim.endpoint_id, claim.lease_token)


async def _give_back_all(connection: AsyncConnection, leases: Sequence[_Lease]) -> int:
    """Gives leases back in the order of their keys, in which the recorder writes results, too."""
    return await _give_back(connection, sorted(leases), timedelta()) if leases else 0


async def _give_back(connection: AsyncConnection, leases: Sequence[_Lease], delay: timedelta) -> int:
    returned = {
        "status": DeliveryStatus.PENDING,
        "delay_us": delay // MICROSECOND,
        "attempts": 0,
        "steps": 0,
    }
    raw = await driver(connection)
    async with raw.pipeline():
        sent = await send_endings(raw, [lease._asdict() | returned for lease in leases])
    return len((await read_ended(sent)).deliveries)
