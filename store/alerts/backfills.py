"""Backfills: which alerts still have to be evaluated on what exists already, and how far each is."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ARRAY, any_, cast, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.alerts import Scope, ScopeKind
from evaluator.definitions import DefinitionState
from store.postgres.database import DriverConnection, driver
from store.postgres.distributed import on_cluster
from store.tables.alerts import alert
from store.tables.base import Identifier


@dataclass(frozen=True)
class Backfill:
    """A backfill that is not complete.

    organization: the name. customer_id: the customer that the alert names, if it names one.
    """

    organization_id: int
    organization: str
    alert_id: str
    customer_id: str | None


class Progress(NamedTuple):
    """How far a backfill is.

    customer_id: the last customer that is complete; empty before the first one. within: a later customer that is not
    complete, and the last of its gauges that was evaluated, in the order of gauge ids.
    """

    customer_id: str = ""
    within: tuple[str, UUID] | None = None


class Claimed(NamedTuple):
    """A backfill that a transaction has claimed.

    progress: how far it is. passed_over: whether it has passed over a customer that could not be evaluated, since it
    began. Then it begins again at its end, in the same process or another.
    """

    progress: Progress = Progress()
    passed_over: bool = False

    def stored(self) -> str:
        """The text in the column `alert.visit_after`.

        A server of an earlier version takes the whole text as the id of the last customer. No id contains a tab, and
        a tab sorts before everything that an id contains. So that server goes on with the same customer, from its
        first gauge on. When the backfill begins again, all parts are replaced together.
        """
        customer_id, within = self.progress
        parts = [customer_id, within[0], within[1].hex] if within else [customer_id]
        return "\t".join([*parts, _PASSED_OVER] if self.passed_over else parts)

    @classmethod
    def from_stored(cls, text: str) -> "Claimed":
        """The inverse of `stored`."""
        customer_id, *parts = text.split("\t")
        passed_over = parts[-1:] == [_PASSED_OVER]
        within = parts[:-1] if passed_over else parts
        return cls(Progress(customer_id, (within[0], UUID(within[1])) if within else None), passed_over)


_PASSED_OVER = "passed over"  # it differs from an id of a gauge, which is the last part otherwise
FROM_THE_BEGINNING = Claimed().stored()  # the alert was evaluated for no customer yet


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
SELECT w.organization_id, o.name, a.alert_id, a.customer_id
FROM waiting w
JOIN organization o ON o.organization_id = w.organization_id
LEFT JOIN unnest(%(organization_ids)s::bigint[], %(alert_ids)s::text[]) AS t (organization_id, last_id)
    ON t.organization_id = w.organization_id
CROSS JOIN LATERAL (
    (
        SELECT alert_id, customer_id, 0 AS part FROM alert
        WHERE organization_id = w.organization_id AND visit_after IS NOT NULL
            AND alert_id > coalesce(t.last_id, '') COLLATE "C"
        ORDER BY alert_id LIMIT %(limit)s
    ) UNION ALL (
        SELECT alert_id, customer_id, 1 FROM alert
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


async def claim(connection: AsyncConnection, backfill: Backfill) -> Claimed | None:
    """Claims a backfill until the transaction ends; returns how far it is.

    None: it is complete, or another replica works on it. The organization's lock has to be held before: a change of
    an alert takes that lock first too, and with another order here the two would deadlock.
    """
    stored: str | None = await connection.scalar(
        select(alert.c.visit_after)
        .where(
            alert.c.organization_id == backfill.organization_id,
            alert.c.alert_id == backfill.alert_id,
            alert.c.visit_after.is_not(None),
        )
        .with_for_update(skip_locked=True)
    )
    return None if stored is None else Claimed.from_stored(stored)


# Claims backfills of alerts that name a customer, in the order of their ids.
_CLAIM_NAMED = """
SELECT alert_id, customer_id, visit_after = customer_id FROM alert
WHERE organization_id = %(organization_id)s AND visit_after IS NOT NULL AND customer_id IS NOT NULL
    AND alert_id >= %(first)s AND alert_id <> ALL(%(others_than)s)
ORDER BY alert_id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
"""


class Named(NamedTuple):
    """A claimed backfill of an alert that names a customer. evaluated: the alert was evaluated on its customer."""

    alert_id: str
    customer_id: str
    evaluated: bool


async def claim_named(
    connection: DriverConnection, organization_id: int, first: str, limit: int, others_than: Collection[str]
) -> list[Named]:
    """Claims backfills of alerts that name a customer, like `claim`.

    first: the lowest alert id. others_than: alerts that are left out. Backfills on which another replica works are
    left out, too.
    """
    parameters = {
        "organization_id": organization_id,
        "first": first,
        "limit": limit,
        "others_than": list(others_than),
    }
    cursor = await connection.execute(_CLAIM_NAMED, parameters)
    return [Named(*row) for row in await cursor.fetchall()]


async def advance(connection: AsyncConnection, organization_id: int, alert_id: str, reached: Claimed | None) -> None:
    """Stores how far the backfill is; None: it is complete, and the alert was evaluated on all that existed."""
    if reached is None:
        await complete(await driver(connection), organization_id, [alert_id])
        return
    await connection.execute(
        update(alert)
        .where(alert.c.organization_id == organization_id, alert.c.alert_id == alert_id)
        .values(visit_after=reached.stored())
    )


async def complete(connection: DriverConnection, organization_id: int, alert_ids: Collection[str]) -> None:
    """Stores that backfills are complete. The transaction must have claimed them."""
    await connection.execute(
        "UPDATE alert SET visit_after = NULL, looked = looked OR state = %s"
        " WHERE organization_id = %s AND alert_id = ANY(%s)",
        (DefinitionState.ACTIVE.value, organization_id, list(alert_ids)),
        prepare=False,  # see `store.alerts.alerts`
    )


async def reach_end(connection: DriverConnection, organization_id: int, alert_ids: Collection[str]) -> None:
    """Stores that alerts were evaluated on the customers that they name. The transaction must have claimed them.

    They are not complete: see `may_complete`.
    """
    await connection.execute(
        "UPDATE alert SET visit_after = customer_id WHERE organization_id = %s AND alert_id = ANY(%s)",
        (organization_id, list(alert_ids)),
        prepare=False,
    )


def may_complete(connection: DriverConnection) -> bool:
    """Whether the transaction that evaluates an alert may also say that its backfill is complete.

    On a cluster the coordinator shows what a transaction wrote some milliseconds before the workers do. There a
    transaction of its own says so, when all shows that the backfill found.
    """
    return not on_cluster(connection)


async def without_first(connection: DriverConnection, organization_id: int, alert_ids: Collection[str]) -> set[str]:
    """Those of these alerts whose first backfill is not complete."""
    cursor = await connection.execute(
        "SELECT alert_id FROM alert WHERE organization_id = %s AND alert_id = ANY(%s) AND NOT looked",
        (organization_id, list(alert_ids)),
    )
    return {alert_id for (alert_id,) in await cursor.fetchall()}


async def begin(connection: AsyncConnection, organization_id: int, alert_ids: Sequence[str]) -> None:
    """Begins backfills of alerts for all customers; one that is in progress begins again."""
    await connection.execute(
        update(alert)
        .where(
            alert.c.organization_id == organization_id,
            alert.c.alert_id == any_(cast(list(alert_ids), ARRAY(Identifier))),
        )
        .values(visit_after=FROM_THE_BEGINNING)
    )


_ALL_CUSTOMERS = """
SELECT customer_id FROM customer
WHERE organization_id = %(organization_id)s AND customer_id > %(after)s
ORDER BY customer_id LIMIT %(limit)s
"""

# Either the customer is on the plan or one of its subscriptions is. Each part is read from its index in order, so
# that a page costs its own customers, and neither those without the plan nor those behind the page.
_CUSTOMERS_OF_PLAN = """
SELECT customer_id FROM (
    (
        SELECT customer_id FROM customer
        WHERE organization_id = %(organization_id)s AND plan_id = %(plan_id)s AND customer_id > %(after)s
        ORDER BY customer_id LIMIT %(limit)s
    ) UNION (
        SELECT DISTINCT customer_id FROM subscription
        WHERE organization_id = %(organization_id)s AND plan_id = %(plan_id)s AND customer_id > %(after)s
        ORDER BY customer_id LIMIT %(limit)s
    )
) AS member ORDER BY customer_id LIMIT %(limit)s
"""

_ONE_CUSTOMER = """
SELECT customer_id FROM customer
WHERE organization_id = %(organization_id)s AND customer_id > %(after)s AND customer_id = %(customer_id)s
"""


async def customers(
    connection: DriverConnection, organization_id: int, scope: Scope, after: str, limit: int
) -> list[str]:
    """The next customers, by id, that may be in that scope, or have a subscription in it."""
    query = _ALL_CUSTOMERS
    if scope.customer_id is not None:
        query = _ONE_CUSTOMER
    elif scope.kind is ScopeKind.PLAN:
        query = _CUSTOMERS_OF_PLAN
    parameters = {
        "organization_id": organization_id,
        "after": after,
        "limit": limit,
        "plan_id": scope.plan_id,
        "customer_id": scope.customer_id,
    }
    cursor = await connection.execute(query.encode(), parameters)
    return [customer_id for (customer_id,) in await cursor.fetchall()]
