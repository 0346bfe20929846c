"""Backfills: which alerts still have to be evaluated on what exists already, how far each is, and what exists."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.alerts import Scope, ScopeKind
from evaluator.definitions import DefinitionState
from evaluator.gauges import Group
from evaluator.watched_gauges import CustomerMeasure
from store.postgres.database import DriverConnection, driver
from store.tables.accounts import customer, subscription
from store.tables.alerts import alert
from store.usage import contract_conditions, metric_conditions, price_conditions

FROM_THE_BEGINNING = ""  # sorts before every customer_id: the alert was evaluated for no customer yet


@dataclass(frozen=True)
class Backfill:
    """A backfill that is not complete; organization: the name."""

    organization_id: int
    organization: str
    alert_id: str


# Organizations that have backfills are found one after the other in the index, whatever the number of their
# backfills.
_WAITING = """
WITH RECURSIVE waiting AS (
    (SELECT organization_id FROM alert WHERE visit_after IS NOT NULL ORDER BY organization_id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT a.organization_id FROM alert a
        WHERE a.visit_after IS NOT NULL AND a.organization_id > w.organization_id
        ORDER BY a.organization_id LIMIT 1
    )
    FROM waiting w WHERE w.organization_id IS NOT NULL
)
SELECT w.organization_id, o.name, a.alert_id
FROM waiting w
JOIN organization o ON o.organization_id = w.organization_id
LEFT JOIN unnest(%(organization_ids)s::bigint[], %(alert_ids)s::text[]) AS t (organization_id, last_id)
    ON t.organization_id = w.organization_id
CROSS JOIN LATERAL (
    (
        SELECT alert_id, 0 AS part FROM alert
        WHERE organization_id = w.organization_id AND visit_after IS NOT NULL
            AND alert_id > coalesce(t.last_id, '') COLLATE "C"
        ORDER BY alert_id LIMIT %(limit)s
    ) UNION ALL (
        SELECT alert_id, 1 FROM alert
        WHERE organization_id = w.organization_id AND visit_after IS NOT NULL
            AND alert_id <= coalesce(t.last_id, '') COLLATE "C"
        ORDER BY alert_id LIMIT %(limit)s
    )
    ORDER BY part, alert_id LIMIT %(limit)s
) AS a
ORDER BY w.organization_id, a.part, a.alert_id
"""


async def waiting(connection: AsyncConnection, limit: int, last: Mapping[int, str]) -> list[list[Backfill]]:
    """Backfills that are not complete, of each organization up to `limit`; other processes may work on some of them.

    last: by organization, the alert behind which its backfills begin; those up to it come after the others.
    """
    raw = await driver(connection)
    parameters = {"organization_ids": list(last), "alert_ids": list(last.values()), "limit": limit}
    cursor = await raw.execute(_WAITING, parameters)
    found: dict[int, list[Backfill]] = {}
    for row in await cursor.fetchall():
        found.setdefault(row[0], []).append(Backfill(*row))
    return list(found.values())


async def claim(connection: AsyncConnection, backfill: Backfill) -> str | None:
    """Claims a backfill until the transaction ends; returns the last customer that it has evaluated.

    None: it is complete, or another replica works on it. The organization's lock has to be held before: a change of
    an alert takes that lock first too, and with another order here the two would deadlock.
    """
    after: str | None = await connection.scalar(
        select(alert.c.visit_after)
        .where(
            alert.c.organization_id == backfill.organization_id,
            alert.c.alert_id == backfill.alert_id,
            alert.c.visit_after.is_not(None),
        )
        .with_for_update(skip_locked=True)
    )
    return after


async def advance(connection: AsyncConnection, organization_id: int, alert_id: str, after: str | None) -> None:
    """Stores how far the backfill is; None: it is complete, and the alert was evaluated on all that existed."""
    values: dict[str, object] = {"visit_after": after}
    if after is None:
        values["looked"] = alert.c.looked | (alert.c.state == DefinitionState.ACTIVE)
    await connection.execute(
        update(alert).where(alert.c.organization_id == organization_id, alert.c.alert_id == alert_id).values(values)
    )


async def without_first(connection: DriverConnection, organization_id: int, alert_ids: Collection[str]) -> set[str]:
    """Those of these alerts whose first backfill is not complete."""
    cursor = await connection.execute(
        "SELECT alert_id FROM alert WHERE organization_id = %s AND alert_id = ANY(%s) AND NOT looked",
        (organization_id, list(alert_ids)),
    )
    return {alert_id for (alert_id,) in await cursor.fetchall()}


async def begin(connection: AsyncConnection, organization_id: int, alert_ids: Sequence[str]) -> None:
    """Begins backfills of alerts for all customers; one that is under way begins again."""
    await connection.execute(
        update(alert)
        .where(alert.c.organization_id == organization_id, alert.c.alert_id.in_(alert_ids))
        .values(visit_after=FROM_THE_BEGINNING)
    )


async def customers(
    connection: AsyncConnection, organization_id: int, scope: Scope, after: str, limit: int
) -> list[str]:
    """The next customers, by id, that may be in that scope, or have a subscription in it."""
    query = (
        select(customer.c.customer_id)
        .where(customer.c.organization_id == organization_id, customer.c.customer_id > after)
        .order_by(customer.c.customer_id)
        .limit(limit)
    )
    if scope.customer_id is not None:
        query = query.where(customer.c.customer_id == scope.customer_id)
    elif scope.kind is ScopeKind.PLAN:
        # Either the customer is on the plan or one of its subscriptions is.
        on_plan = select(subscription.c.customer_id).where(
            subscription.c.organization_id == organization_id, subscription.c.plan_id == scope.plan_id
        )
        query = query.where((customer.c.plan_id == scope.plan_id) | customer.c.customer_id.in_(on_plan))
    return list(await connection.scalars(query))


_GROUPS = """
SELECT DISTINCT i.position, {columns}
FROM unnest(
    %(customer_ids)s::text[], %(subscription_ids)s::text[], %(starts)s::timestamptz[], %(ends)s::timestamptz[]
) WITH ORDINALITY AS i (customer_id, subscription_id, period_start, period_end, position), LATERAL (
    SELECT e.properties FROM event e
    WHERE e.organization_id = %(organization_id)s AND e.customer_id = i.customer_id COLLATE "C"
        AND e.event_time >= i.period_start AND e.event_time < i.period_end
        AND (i.subscription_id IS NULL OR e.subscription_id = i.subscription_id COLLATE "C")
        AND {measured} AND {priced} AND {contracted} AND {grouped}
    {limit}
) AS e
"""


async def groups(
    connection: DriverConnection,
    organization_id: int,
    targets: Sequence[CustomerMeasure],
    keys: Sequence[str],
    now: datetime,
) -> dict[int, list[Group]]:
    """For each target (by its index) the groups of those keys that its stored events of the current period have.

    Without keys that is the one empty group, for each target that has any event.
    """
    if not targets:
        return {}
    measure, raw_events = targets[0].measure, targets[0].raw_events
    columns = ", ".join(f"e.properties ->> %(key{number})s" for number in range(len(keys))) or "1"
    query = _GROUPS.format(
        columns=columns,
        measured="e.currency = %(name)s AND e.cost IS NOT NULL"
        if measure.of_cost
        else metric_conditions.condition("%(name)s", raw_events),
        priced=price_conditions.condition(measure.prices),
        contracted=contract_conditions.condition(measure.contract_fields),
        grouped=" AND ".join(f"e.properties ? %(key{number})s" for number in range(len(keys))) or "true",
        limit="" if keys else "LIMIT 1",
    )
    periods = [target.cycle.period_at(now) for target in targets]
    cursor = await connection.execute(
        query.encode(),
        {
            "organization_id": organization_id,
            "name": measure.currency or measure.metric_id,
            "customer_ids": [target.customer_id for target in targets],
            "subscription_ids": [target.subscription_id for target in targets],
            "starts": [period.start for period in periods],
            "ends": [period.end for period in periods],
            **{f"key{number}": key for number, key in enumerate(keys)},
            **price_conditions.parameters(measure.prices),
            **contract_conditions.parameters(measure.contract_fields),
            **metric_conditions.parameters(raw_events),
        },
    )
    found: dict[int, list[Group]] = {}
    for position, *values in await cursor.fetchall():
        found.setdefault(position - 1, []).append(tuple(zip(keys, values, strict=True)) if keys else ())
    return found
