"""Exclusions: whom an alert covers and is not evaluated for, and the counts of groups that lead to it."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.exclusions import Excluded, ExclusionReason
from store.identity import organizations
from store.postgres.database import DriverConnection, driver
from store.tables.accounts import customer
from store.tables.alerts import alert_exclusion, group_count

EVERY_SUBSCRIPTION = ""  # the subscription_id of rows that are about the customer as a whole; no id is empty


class Groups(NamedTuple):
    """The groups of one alert for a customer, or one of its subscriptions, in one billing period."""

    customer_id: str
    alert_id: str
    subscription_id: str | None
    period_start: datetime


class Counted(NamedTuple):
    """Groups that an alert meets for the first time since it began to watch at `watching_epoch`."""

    groups: Groups
    watching_epoch: int
    number: int


# A count of before the alert was switched off and on again starts anew: the alert meets every group again.
_COUNT = """
INSERT INTO group_count AS g (
    organization_id, customer_id, alert_id, subscription_id, period_start, watching_epoch, groups
)
SELECT %(organization_id)s, customer_id, alert_id, subscription_id, period_start, watching_epoch, number
FROM unnest(
    %(customer_ids)s::text[], %(alert_ids)s::text[], %(subscription_ids)s::text[], %(starts)s::timestamptz[],
    %(epochs)s::bigint[], %(numbers)s::bigint[]
) AS i (customer_id, alert_id, subscription_id, period_start, watching_epoch, number)
ORDER BY customer_id COLLATE "C", alert_id COLLATE "C", subscription_id COLLATE "C", period_start
ON CONFLICT (organization_id, customer_id, alert_id, subscription_id, period_start) DO UPDATE SET
    groups = excluded.groups + CASE WHEN g.watching_epoch = excluded.watching_epoch THEN g.groups ELSE 0 END,
    watching_epoch = excluded.watching_epoch
RETURNING customer_id, alert_id, subscription_id, period_start, groups
"""


async def count(connection: DriverConnection, organization_id: int, counted: Sequence[Counted]) -> dict[Groups, int]:
    """Adds to counts of groups; returns what they come to. The rows stay locked.

    Comes after the gauges in the order of all locks.
    """
    cursor = await connection.execute(
        _COUNT,
        {
            "organization_id": organization_id,
            "customer_ids": [item.groups.customer_id for item in counted],
            "alert_ids": [item.groups.alert_id for item in counted],
            "subscription_ids": [item.groups.subscription_id or EVERY_SUBSCRIPTION for item in counted],
            "starts": [item.groups.period_start for item in counted],
            "epochs": [item.watching_epoch for item in counted],
            "numbers": [item.number for item in counted],
        },
    )
    return {Groups(row[0], row[1], row[2] or None, row[3]): row[4] for row in await cursor.fetchall()}


_EXCLUDE = """
INSERT INTO alert_exclusion (
    organization_id, customer_id, alert_id, subscription_id, reason, changed_epoch, create_time
)
SELECT %(organization_id)s, customer_id, alert_id, subscription_id, %(reason)s, %(epoch)s, %(now)s
FROM unnest(%(customer_ids)s::text[], %(alert_ids)s::text[], %(subscription_ids)s::text[])
    AS i (customer_id, alert_id, subscription_id)
ORDER BY customer_id COLLATE "C", alert_id COLLATE "C", subscription_id COLLATE "C"
ON CONFLICT DO NOTHING
RETURNING customer_id, alert_id, subscription_id
"""


async def exclude(
    connection: DriverConnection,
    organization_id: int,
    excluded: Collection[Excluded],
    reason: ExclusionReason,
    epoch: int,
    now: datetime,
) -> set[Excluded]:
    """Makes exclusions; returns those that were not there before.

    epoch: the one that stands, in a transaction that shares the organization's lock, as long as nothing depends on
    everybody knowing at once; otherwise a new one.
    """
    cursor = await connection.execute(
        _EXCLUDE,
        {
            "organization_id": organization_id,
            "customer_ids": [item.customer_id for item in excluded],
            "alert_ids": [item.alert_id for item in excluded],
            "subscription_ids": [item.subscription_id or EVERY_SUBSCRIPTION for item in excluded],
            "reason": reason.value,
            "epoch": epoch,
            "now": now,
        },
    )
    return {Excluded(row[0], row[1], row[2] or None) for row in await cursor.fetchall()}


_OF_CUSTOMERS = """
SELECT customer_id, alert_id, subscription_id FROM alert_exclusion
WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(customer_ids)s)
"""

_SINCE = """
SELECT customer_id, alert_id, subscription_id FROM alert_exclusion
WHERE organization_id = %(organization_id)s AND changed_epoch >= %(epoch)s
"""


async def of_customers(
    connection: DriverConnection, organization_id: int, customer_ids: Sequence[str]
) -> set[Excluded]:
    """What those customers are excluded from."""
    cursor = await connection.execute(
        _OF_CUSTOMERS, {"organization_id": organization_id, "customer_ids": list(customer_ids)}
    )
    return {Excluded(row[0], row[1], row[2] or None) for row in await cursor.fetchall()}


async def made_since(connection: DriverConnection, organization_id: int, epoch: int) -> set[Excluded]:
    """The exclusions that were made while that epoch stood, or later."""
    cursor = await connection.execute(_SINCE, {"organization_id": organization_id, "epoch": epoch})
    return {Excluded(row[0], row[1], row[2] or None) for row in await cursor.fetchall()}


async def reasons(
    connection: AsyncConnection, organization_id: int, customer_id: str
) -> dict[tuple[str, str | None], ExclusionReason]:
    """Why a customer is excluded from alerts, by alert id and subscription id (None: all of the customer)."""
    rows = await connection.execute(
        select(alert_exclusion.c.alert_id, alert_exclusion.c.subscription_id, alert_exclusion.c.reason).where(
            alert_exclusion.c.organization_id == organization_id, alert_exclusion.c.customer_id == customer_id
        )
    )
    return {(row.alert_id, row.subscription_id or None): ExclusionReason(row.reason) for row in rows}


async def request(connection: AsyncConnection, organization_id: int, excluded: Excluded, now: datetime) -> bool:
    """Excludes a customer, or one of its subscriptions, because somebody asked for it; False when it was before.

    Keeps ingest out until the transaction ends.
    """
    epoch = await organizations.change(connection, organization_id)
    raw = await driver(connection)
    if not await exclude(raw, organization_id, [excluded], ExclusionReason.REQUESTED, epoch, now):
        return False
    await _customer_changed(connection, organization_id, excluded.customer_id, epoch, now)
    return True


async def lift(connection: AsyncConnection, organization_id: int, excluded: Excluded, now: datetime) -> bool:
    """Ends an exclusion; False when there is none. Keeps ingest out until the transaction ends.

    The customer counts as changed: what nobody watched meanwhile is recounted. Its groups are counted anew.
    """
    epoch = await organizations.change(connection, organization_id)
    ended = await connection.execute(
        delete(alert_exclusion).where(
            alert_exclusion.c.organization_id == organization_id,
            alert_exclusion.c.customer_id == excluded.customer_id,
            alert_exclusion.c.alert_id == excluded.alert_id,
            alert_exclusion.c.subscription_id == (excluded.subscription_id or EVERY_SUBSCRIPTION),
        )
    )
    if not ended.rowcount:
        return False
    await connection.execute(
        delete(group_count).where(
            group_count.c.organization_id == organization_id,
            group_count.c.customer_id == excluded.customer_id,
            group_count.c.alert_id == excluded.alert_id,
        )
    )
    await _customer_changed(connection, organization_id, excluded.customer_id, epoch, now)
    return True


async def _customer_changed(
    connection: AsyncConnection, organization_id: int, customer_id: str, epoch: int, now: datetime
) -> None:
    await connection.execute(
        update(customer)
        .where(customer.c.organization_id == organization_id, customer.c.customer_id == customer_id)
        .values(changed_epoch=epoch, update_time=now)
    )
