"""Exclusions: customers and subscriptions for which an alert is disabled, and the group counts that disable it."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, delete, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.exclusions import Excluded, ExclusionReason
from store.erasures import jobs as erasures
from store.postgres.database import DriverConnection, driver
from store.tables.accounts import customer
from store.tables.alerts import alert_exclusion, group_count

EVERY_SUBSCRIPTION = ""  # the subscription_id of rows for all of the customer; ids of subscriptions are not empty


class Groups(NamedTuple):
    """The groups of one alert, for a customer or one of its subscriptions, in one billing period."""

    customer_id: str
    alert_id: str
    subscription_id: str | None
    period_start: datetime


class NewGroups(NamedTuple):
    """How many groups are new to an alert that watches since `watching_epoch`."""

    groups: Groups
    watching_epoch: int
    number: int


# Adds to counts of groups. A count of an earlier watching_epoch starts again from 0: the alert was disabled since, so
# that all groups are new to it again.
_COUNT = """
INSERT INTO group_count AS g (
    organization_id, customer_id, alert_id, subscription_id, period_start, watching_epoch, groups
)
SELECT %(organization_id)s, customer_id, alert_id, coalesce(subscription_id, ''), period_start, watching_epoch,
    number
FROM unnest(
    string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(alert_ids)s, E'\t'),
    string_to_array(%(subscription_ids)s, E'\t'), string_to_array(%(starts)s, E'\t')::timestamptz[],
    string_to_array(%(epochs)s, E'\t')::bigint[], string_to_array(%(numbers)s, E'\t')::bigint[]
) AS i (customer_id, alert_id, subscription_id, period_start, watching_epoch, number)
ORDER BY customer_id COLLATE "C", alert_id COLLATE "C", subscription_id COLLATE "C", period_start
ON CONFLICT (organization_id, customer_id, alert_id, subscription_id, period_start) DO UPDATE SET
    groups = excluded.groups + CASE WHEN g.watching_epoch = excluded.watching_epoch THEN g.groups ELSE 0 END,
    watching_epoch = excluded.watching_epoch
RETURNING customer_id, alert_id, subscription_id, period_start, groups
"""


async def count(
    connection: DriverConnection, organization_id: int, counted: Sequence[NewGroups]
) -> dict[Groups, int]:
    """Adds to counts of groups; returns the new counts. The rows stay locked.

    In the order of all locks, these rows come after the gauges.
    """
    cursor = await connection.execute(
        _COUNT,
        {
            "organization_id": organization_id,
            # Each column as one text: the driver converts arrays value by value.
            "customer_ids": "\t".join([item.groups.customer_id for item in counted]),
            "alert_ids": "\t".join([item.groups.alert_id for item in counted]),
            "subscription_ids": "\t".join([item.groups.subscription_id or EVERY_SUBSCRIPTION for item in counted]),
            "starts": "\t".join([item.groups.period_start.isoformat() for item in counted]),
            "epochs": "\t".join([str(item.watching_epoch) for item in counted]),
            "numbers": "\t".join([str(item.number) for item in counted]),
        },
    )
    return {Groups(row[0], row[1], row[2] or None, row[3]): row[4] for row in await cursor.fetchall()}


_COUNTED = """
SELECT groups FROM group_count
WHERE organization_id = %(organization_id)s AND customer_id = %(customer_id)s AND alert_id = %(alert_id)s
    AND subscription_id = coalesce(%(subscription_id)s, '') AND period_start = %(period_start)s
    AND watching_epoch = %(watching_epoch)s
"""


async def counted(connection: DriverConnection, organization_id: int, groups: Groups, watching_epoch: int) -> int:
    """How many groups an alert that watches since `watching_epoch` has met."""
    cursor = await connection.execute(
        _COUNTED, {"organization_id": organization_id, "watching_epoch": watching_epoch, **groups._asdict()}
    )
    row = await cursor.fetchone()
    return 0 if row is None else int(row[0])


# Stores exclusions, and returns those that are new.
_EXCLUDE = """
INSERT INTO alert_exclusion (
    organization_id, customer_id, alert_id, subscription_id, reason, changed_epoch, create_time, key_id
)
SELECT %(organization_id)s, customer_id, alert_id, subscription_id, %(reason)s, %(epoch)s, %(now)s, %(key_id)s
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
    key_id: str = "",
) -> set[Excluded]:
    """Stores exclusions; returns those that are new. key_id: of the caller that requests them.

    epoch: a new one, so that all servers apply the exclusions to the next event. A transaction that holds the
    organization's lock only shared cannot raise the epoch and passes the present one: evaluations read the exclusions
    before they notify, so a router that does not know them only does needless work.
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
            "key_id": key_id,
        },
    )
    return {Excluded(row[0], row[1], row[2] or None) for row in await cursor.fetchall()}


# The exclusions of some customers.
_OF_CUSTOMERS = """
SELECT customer_id, alert_id, subscription_id FROM alert_exclusion
WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(customer_ids)s)
"""

# The exclusions that were stored at an epoch or later.
_SINCE = """
SELECT customer_id, alert_id, subscription_id FROM alert_exclusion
WHERE organization_id = %(organization_id)s AND changed_epoch >= %(epoch)s
"""


async def of_customers(
    connection: DriverConnection, organization_id: int, customer_ids: Sequence[str]
) -> set[Excluded]:
    """The exclusions of those customers."""
    cursor = await connection.execute(
        _OF_CUSTOMERS, {"organization_id": organization_id, "customer_ids": list(customer_ids)}
    )
    return {Excluded(row[0], row[1], row[2] or None) for row in await cursor.fetchall()}


async def made_since(connection: DriverConnection, organization_id: int, epoch: int) -> set[Excluded]:
    """The exclusions that were stored at that epoch or later."""
    cursor = await connection.execute(_SINCE, {"organization_id": organization_id, "epoch": epoch})
    return {Excluded(row[0], row[1], row[2] or None) for row in await cursor.fetchall()}


async def reasons(
    connection: AsyncConnection, organization_id: int, customer_id: str
) -> dict[tuple[str, str | None], ExclusionReason]:
    """The reasons of a customer's exclusions, by alert id and subscription id (None: all of the customer)."""
    rows = await connection.execute(
        select(alert_exclusion.c.alert_id, alert_exclusion.c.subscription_id, alert_exclusion.c.reason).where(
            alert_exclusion.c.organization_id == organization_id, alert_exclusion.c.customer_id == customer_id
        )
    )
    return {(row.alert_id, row.subscription_id or None): ExclusionReason(row.reason) for row in rows}


class StoredExclusion(NamedTuple):
    """A customer, or subscription, for which an alert is disabled. key_id: empty where no key requested it."""

    customer_id: str
    subscription_id: str | None
    reason: ExclusionReason
    create_time: datetime
    key_id: str


async def list_page(
    connection: AsyncConnection,
    organization_id: int,
    alert_id: str,
    *,
    customer_id: str | None,
    after: tuple[str, str] | None,
    limit: int,
) -> list[StoredExclusion]:
    """Up to `limit` exclusions of an alert, by customer and subscription.

    customer_id: only those of this customer. after: customer and subscription (or "") of the last one seen.
    """
    columns = alert_exclusion.c
    statement = (
        select(columns.customer_id, columns.subscription_id, columns.reason, columns.create_time, columns.key_id)
        .where(columns.organization_id == organization_id, columns.alert_id == alert_id)
        .order_by(columns.customer_id, columns.subscription_id)
        .limit(limit)
    )
    if customer_id is not None:
        statement = statement.where(columns.customer_id == customer_id)
    if after is not None:
        statement = statement.where(tuple_(columns.customer_id, columns.subscription_id) > tuple_(*after))
    return [_stored(row) for row in await connection.execute(statement)]


def _stored(row: Any) -> StoredExclusion:
    return StoredExclusion(row[0], row[1] or None, ExclusionReason(row[2]), row[3], row[4])


async def is_excluded(connection: AsyncConnection, organization_id: int, excluded: Excluded) -> bool:
    """Whether the alert is disabled for exactly this customer or subscription."""
    found = await connection.scalar(select(alert_exclusion.c.reason).where(*_is(organization_id, excluded)))
    return found is not None


async def request(
    connection: AsyncConnection, organization_id: int, excluded: Excluded, key_id: str, epoch: int, now: datetime
) -> bool:
    """Excludes a customer, or one of its subscriptions, as a caller requested; False if it was excluded before.

    epoch: the new one of the transaction, which holds the organization's lock. Raises CustomerBeingErased.
    """
    await erasures.refuse_during(connection, organization_id, excluded.customer_id)
    raw = await driver(connection)
    if not await exclude(raw, organization_id, [excluded], ExclusionReason.REQUESTED, epoch, now, key_id):
        return False
    await _customer_changed(connection, organization_id, excluded.customer_id, epoch, now)
    return True


async def lift(
    connection: AsyncConnection, organization_id: int, excluded: Excluded, epoch: int, now: datetime
) -> StoredExclusion | None:
    """Ends an exclusion, and returns it; None if there is none. epoch: as in `request`.

    The customer counts as changed, so that gauges without a watching alert in between are recounted. Its groups are
    counted again from 0. Raises CustomerBeingErased.
    """
    await erasures.refuse_during(connection, organization_id, excluded.customer_id)
    columns = alert_exclusion.c
    ended = await connection.execute(
        delete(alert_exclusion)
        .where(*_is(organization_id, excluded))
        .returning(columns.customer_id, columns.subscription_id, columns.reason, columns.create_time, columns.key_id)
    )
    if (row := ended.one_or_none()) is None:
        return None
    await connection.execute(
        delete(group_count).where(
            group_count.c.organization_id == organization_id,
            group_count.c.customer_id == excluded.customer_id,
            group_count.c.alert_id == excluded.alert_id,
        )
    )
    await _customer_changed(connection, organization_id, excluded.customer_id, epoch, now)
    return _stored(row)


def _is(organization_id: int, excluded: Excluded) -> tuple[ColumnElement[bool], ...]:
    return (
        alert_exclusion.c.organization_id == organization_id,
        alert_exclusion.c.customer_id == excluded.customer_id,
        alert_exclusion.c.alert_id == excluded.alert_id,
        alert_exclusion.c.subscription_id == (excluded.subscription_id or EVERY_SUBSCRIPTION),
    )


async def _customer_changed(
    connection: AsyncConnection, organization_id: int, customer_id: str, epoch: int, now: datetime
) -> None:
    await connection.execute(
        update(customer)
        .where(customer.c.organization_id == organization_id, customer.c.customer_id == customer_id)
        .values(changed_epoch=epoch, update_time=now)
    )
