"""Visits: which alerts still have to look at what existed before them, and what that is."""

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
from store.tables.usage import event
from store.usage import price_conditions

FROM_THE_BEGINNING = ""  # sorts before every customer_id: nobody has been visited yet


@dataclass(frozen=True)
class Due:
    """A visit that waits; organization: the name."""

    organization_id: int
    organization: str
    alert_id: str


# Organizations that have visits are found one after the other in the index, whatever the number of their visits.
_DUE = """
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


async def due(connection: AsyncConnection, limit: int, last: Mapping[int, str]) -> list[list[Due]]:
    """Visits that wait, whoever may be at work on them: of each organization up to `limit`.

    last: by organization, the alert behind which its visits begin; those up to it come after the others.
    """
    raw = await driver(connection)
    parameters = {"organization_ids": list(last), "alert_ids": list(last.values()), "limit": limit}
    cursor = await raw.execute(_DUE, parameters)
    found: dict[int, list[Due]] = {}
    for row in await cursor.fetchall():
        found.setdefault(row[0], []).append(Due(*row))
    return list(found.values())


async def claim(connection: AsyncConnection, visit: Due) -> str | None:
    """Makes a visit this transaction's until its end; returns the customer up to whom it has come.

    None: it is done, or another replica is at it. The organization's lock has to be held before: whoever changes
    an alert takes that first too, and the two orders would deadlock.
    """
    after: str | None = await connection.scalar(
        select(alert.c.visit_after)
        .where(
            alert.c.organization_id == visit.organization_id,
            alert.c.alert_id == visit.alert_id,
            alert.c.visit_after.is_not(None),
        )
        .with_for_update(skip_locked=True)
    )
    return after


async def advance(connection: AsyncConnection, organization_id: int, alert_id: str, after: str | None) -> None:
    """Remembers how far the visit has come; None: it is done, and the alert has looked at everything."""
    values: dict[str, object] = {"visit_after": after}
    if after is None:
        values["looked"] = alert.c.looked | (alert.c.state == DefinitionState.ACTIVE)
    await connection.execute(
        update(alert).where(alert.c.organization_id == organization_id, alert.c.alert_id == alert_id).values(values)
    )


async def at_first_look(connection: DriverConnection, organization_id: int, alert_ids: Collection[str]) -> set[str]:
    """Which of these alerts have not come yet to the end of what existed before them."""
    cursor = await connection.execute(
        "SELECT alert_id FROM alert WHERE organization_id = %s AND alert_id = ANY(%s) AND NOT looked",
        (organization_id, list(alert_ids)),
    )
    return {alert_id for (alert_id,) in await cursor.fetchall()}


async def begin(connection: AsyncConnection, organization_id: int, alert_ids: Sequence[str]) -> None:
    """Lets alerts visit everybody, from the beginning if they are at it."""
    await connection.execute(
        update(alert)
        .where(alert.c.organization_id == organization_id, alert.c.alert_id.in_(alert_ids))
        .values(visit_after=FROM_THE_BEGINNING)
    )


async def customers(
    connection: AsyncConnection, organization_id: int, scope: Scope, after: str, limit: int
) -> list[str]:
    """The next customers, by id, that may have something in that scope."""
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


async def has_usage(connection: AsyncConnection, organization_id: int, customer_id: str) -> bool:
    """Whether any event of the customer is stored."""
    found = select(event.c.event_id).where(
        event.c.organization_id == organization_id, event.c.customer_id == customer_id
    )
    return bool(await connection.scalar(select(found.exists())))


_GROUPS = """
SELECT DISTINCT i.position, {columns}
FROM unnest(
    %(customer_ids)s::text[], %(subscription_ids)s::text[], %(starts)s::timestamptz[], %(ends)s::timestamptz[]
) WITH ORDINALITY AS i (customer_id, subscription_id, period_start, period_end, position), LATERAL (
    SELECT e.properties FROM event e
    WHERE e.organization_id = %(organization_id)s AND e.customer_id = i.customer_id COLLATE "C"
        AND e.event_time >= i.period_start AND e.event_time < i.period_end
        AND (i.subscription_id IS NULL OR e.subscription_id = i.subscription_id COLLATE "C")
        AND {measured} AND {priced} AND {grouped}
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
    """For each target (by its place) the groups of those keys that its stored events of the current period have.

    Without keys that is the one empty group, for each target that has any event.
    """
    if not targets:
        return {}
    measure = targets[0].measure
    columns = ", ".join(f"e.properties ->> %(key{number})s" for number in range(len(keys))) or "1"
    query = _GROUPS.format(
        columns=columns,
        measured="e.currency = %(name)s AND e.cost IS NOT NULL" if measure.of_cost else "e.metric_id = %(name)s",
        priced=price_conditions.condition(measure.prices),
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
        },
    )
    found: dict[int, list[Group]] = {}
    for position, *values in await cursor.fetchall():
        found.setdefault(position - 1, []).append(tuple(zip(keys, values, strict=True)) if keys else ())
    return found
