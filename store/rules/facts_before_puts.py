"""Facts before puts: what is known of customers before facts of theirs are put, as of one epoch."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from evaluator.alert_index import NO_ALERTS, AlertIndex
from evaluator.routing_facts import CustomerFacts
from store.alerts import active_rules
from store.postgres.database import Cursor, DriverConnection
from store.rules.routing_facts import CUSTOMER_COLUMNS, customer_of

MOST_SUBSCRIPTIONS = 100  # of a customer whose plans are read

# One row for each id, whether the customer exists or not. All in one statement: what another transaction changes
# after the epoch that is read is either not read, or has a later epoch.
_READ = f"""
SELECT i.wanted_id, (SELECT epoch FROM organization WHERE organization_id = %(organization_id)s), s.plan_ids,
       s.subscriptions, {CUSTOMER_COLUMNS}
FROM unnest(%(ids)s::text[]) AS i (wanted_id)
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


@dataclass(frozen=True, slots=True)
class FactsBefore:
    """What is known of a customer.

    epoch: the organization's; what has changed later may be missing. customer: with its alerts; None if it does not
    exist. alerts: the active ones that name it. plan_ids: the plans of its subscriptions; None if it has very many.
    """

    epoch: int
    customer: CustomerFacts | None
    alerts: AlertIndex
    plan_ids: tuple[str | None, ...] | None


class Sent(NamedTuple):
    """The statements that were sent."""

    facts: Cursor
    alerts: Cursor


async def send(connection: DriverConnection, organization_id: int, customer_ids: Collection[str]) -> Sent:
    """Sends the statements that read the customers; `read` reads their results."""
    ids = list(customer_ids)
    parameters = {"organization_id": organization_id, "ids": ids, "most_subscriptions": MOST_SUBSCRIPTIONS}
    facts = await connection.execute(_READ.encode(), parameters)
    return Sent(facts, await active_rules.send_rules_of_customers(connection, organization_id, ids))


async def read(sent: Sent, organization_id: int) -> Mapping[str, FactsBefore]:
    """The customers by their ids."""
    rows = await sent.facts.fetchall()
    rules = await active_rules.read_rules_of_customers(sent.alerts, organization_id)
    found: dict[str, FactsBefore] = {}
    for customer_id, epoch, plan_ids, subscriptions, *columns in rows:
        alerts = AlertIndex(rules[customer_id]) if customer_id in rules else NO_ALERTS
        customer = None if columns[0] is None else customer_of(tuple(columns)).with_alerts(alerts)
        plans = None if subscriptions > MOST_SUBSCRIPTIONS else tuple(plan_ids or ())
        found[customer_id] = FactsBefore(epoch, customer, alerts, plans)
    return found
