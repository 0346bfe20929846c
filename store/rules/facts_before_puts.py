"""Facts before puts: what is known of customers before facts of theirs are put, as of one epoch."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from evaluator.alert_index import NO_ALERTS, AlertIndex
from evaluator.routing_facts import CustomerFacts
from store.alerts import active_rules
from store.postgres.database import DriverConnection, Row
from store.postgres.distributed import on_cluster
from store.rules.routing_facts import CUSTOMER_COLUMNS, SHARD_CUSTOMER_COLUMNS, customer_of

MOST_SUBSCRIPTIONS = 100  # of a customer whose plans are read

# One row for each id, whether the customer exists or not. All in one statement: what another transaction changes
# after the epoch that is read is either not read, or has a later epoch. PostgreSQL expects the same number of ids
# from any text, so it keeps one plan; for an array it would plan each time anew.
_READ = f"""
SELECT i.wanted_id, (SELECT epoch FROM organization WHERE organization_id = %(organization_id)s), s.plan_ids,
       s.subscriptions, (
           SELECT true FROM gauge
           WHERE organization_id = %(organization_id)s AND customer_id = i.wanted_id COLLATE "C" LIMIT 1
       ) IS NOT NULL, {CUSTOMER_COLUMNS}
FROM string_to_table(%(ids)s, E'\t') AS i (wanted_id)
LEFT JOIN LATERAL (
    SELECT * FROM customer WHERE organization_id = %(organization_id)s AND customer_id = i.wanted_id COLLATE "C"
    LIMIT 1
) AS customer ON true
CROSS JOIN LATERAL (
    SELECT array_agg(DISTINCT plan_id) AS plan_ids, count(*) AS subscriptions FROM (
        SELECT plan_id FROM subscription
        WHERE organization_id = %(organization_id)s AND customer_id = i.wanted_id COLLATE "C"
        LIMIT %(most_subscriptions)s + 1
    ) AS read
) AS s
"""


# On a cluster: the epoch first, then what it may be older than.
_EPOCH = b"SELECT epoch FROM organization WHERE organization_id = %s"
_CUSTOMERS = f"""
SELECT (
    SELECT true FROM gauge
    WHERE gauge.organization_id = customer.organization_id AND gauge.customer_id = customer.customer_id
        AND gauge.customer_id = ANY(%(ids)s)
    LIMIT 1
) IS NOT NULL, {SHARD_CUSTOMER_COLUMNS}
FROM customer WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(ids)s)
""".encode()
_PLANS = b"""
SELECT customer_id, array_agg(DISTINCT plan_id), count(*) FROM subscription
WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(ids)s) GROUP BY customer_id
"""


@dataclass(frozen=True, slots=True)
class FactsBefore:
    """What is known of a customer.

    epoch: the organization's; what has changed later may be missing. customer: with its alerts; None if it does not
    exist. alerts: the active ones that name it. plan_ids: the plans of its subscriptions; None if it has very many.
    has_gauges: whether anything of it was ever measured.
    """

    epoch: int
    customer: CustomerFacts | None
    alerts: AlertIndex
    plan_ids: tuple[str | None, ...] | None
    has_gauges: bool


async def read(
    connection: DriverConnection, organization_id: int, customer_ids: Collection[str]
) -> Mapping[str, FactsBefore]:
    """The customers by their ids."""
    if not customer_ids:
        return {}
    parameters = {
        "organization_id": organization_id,
        "ids": "\t".join(customer_ids),
        "most_subscriptions": MOST_SUBSCRIPTIONS,
    }
    if on_cluster(connection):
        rows = await _rows(connection, organization_id, list(customer_ids))
    else:
        rows = await (await connection.execute(_READ.encode(), parameters)).fetchall()
    # Alerts that are read later than the rest may be newer: then their epochs are later, too.
    rules = await active_rules.rules_of_customers(connection, organization_id, customer_ids)
    found: dict[str, FactsBefore] = {}
    for customer_id, epoch, plan_ids, subscriptions, has_gauges, *columns in rows:
        alerts = AlertIndex(rules[customer_id]) if customer_id in rules else NO_ALERTS
        customer = None if columns[0] is None else customer_of(tuple(columns)).with_alerts(alerts)
        plans = None if subscriptions > MOST_SUBSCRIPTIONS else tuple(plan_ids or ())
        found[customer_id] = FactsBefore(epoch, customer, alerts, plans, has_gauges)
    return found


async def _rows(connection: DriverConnection, organization_id: int, ids: list[str]) -> list[Row]:
    """The rows of _READ, from statements on tables that lie apart."""
    row = await (await connection.execute(_EPOCH, (organization_id,))).fetchone()
    epoch = None if row is None else row[0]
    parameters = {"organization_id": organization_id, "ids": ids}
    customers = {row[1]: row for row in await (await connection.execute(_CUSTOMERS, parameters)).fetchall()}
    plans = {row[0]: row[1:] for row in await (await connection.execute(_PLANS, parameters)).fetchall()}
    return [(one, epoch, *plans.get(one, (None, 0)), *customers.get(one, (False, None))) for one in ids]
