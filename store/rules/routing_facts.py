"""What the router needs of customers, subscriptions and metrics: read, and registered implicitly by usage.

The classes are the router's (`evaluator.routing`). `store.accounts` stores the facts as callers put them.
"""

import functools
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from evaluator.aggregation import Aggregation
from evaluator.alert_index import AlertIndex
from evaluator.periods import DEFAULT_CYCLE, BillingCycle, Cadence
from evaluator.raw_events import RawEvents
from evaluator.routing_facts import NO_FIELDS, CustomerFacts, MetricFacts, SubscriptionFacts
from evaluator.selection_json import event_filters_from_json
from runtime.turns import Slices
from store.alerts import active_rules
from store.limits.effective_limits import LIMITS_COLUMN, read_column
from store.postgres.database import DriverConnection, Row
from store.postgres.distributed import Forms, on_cluster

# The exclusions of a customer, as a column of a statement about `customer`.
_EXCLUDED = """
       (SELECT array_agg(ARRAY[x.alert_id, x.subscription_id]) FROM alert_exclusion x
        WHERE x.organization_id = customer.organization_id AND x.customer_id = customer.customer_id)
"""

# The columns of a customer, with its exclusions and limits; `customer_of` reads them.
CUSTOMER_COLUMNS = f"""
       customer_id, plan_id, currency, anchor_time, cadence, interval_count, time_zone, changed_epoch,
       greatest(update_time, contracts_change_time), {_EXCLUDED}, plan_end_time, {LIMITS_COLUMN},
       EXISTS (SELECT FROM erasure_job j
               WHERE j.organization_id = customer.organization_id AND j.customer_id = customer.customer_id),
       parent_customer_id, below_change_time
"""

# The same of the customers `ids` on a cluster. Citus asks only their shards if each table by customer
# in the statement names them, also those of its subqueries.
SHARD_CUSTOMER_COLUMNS = CUSTOMER_COLUMNS.replace(
    "x.customer_id = customer.customer_id", "x.customer_id = customer.customer_id AND x.customer_id = ANY(%(ids)s)"
)

# Customers by their ids. The subquery with LIMIT takes each by its key. For a condition on all ids, PostgreSQL may
# read all customers of the organization, of which it expects a hundredth of the table.
_CUSTOMERS_BY_KEY = f"""
SELECT {CUSTOMER_COLUMNS} FROM unnest(%(ids)s::text[]) AS i (wanted_id) CROSS JOIN LATERAL (
    SELECT * FROM customer WHERE organization_id = %(organization_id)s AND customer_id = i.wanted_id COLLATE "C"
    LIMIT 1
) AS customer
"""
_CUSTOMERS_OF_SHARDS = f"""
SELECT {SHARD_CUSTOMER_COLUMNS} FROM customer
WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(ids)s)
"""
_CUSTOMERS = Forms(_CUSTOMERS_BY_KEY.encode(), _CUSTOMERS_OF_SHARDS.encode())

# Subscriptions; the condition follows.
_SUBSCRIPTION = """
SELECT customer_id, subscription_id, plan_id, currency, anchor_time, cadence, interval_count, time_zone,
       changed_epoch, update_time, custom_fields,
       EXISTS (SELECT FROM fact_deletion d WHERE d.organization_id = subscription.organization_id
               AND d.kind = 'SUBSCRIPTION' AND d.customer_id = subscription.customer_id
               AND d.fact_id = subscription.subscription_id)
FROM subscription WHERE organization_id = %(organization_id)s AND
"""

_SUBSCRIPTIONS = Forms.naming_shards(
    _SUBSCRIPTION
    + """
(customer_id, subscription_id) IN (
    SELECT a COLLATE "C", b COLLATE "C" FROM unnest(%(customers)s::text[], %(subscriptions)s::text[]) AS i (a, b)
) {shards}
""",
    "customer_id = ANY(%(customers)s)",
)

# Metrics; the condition follows.
_METRIC = """
SELECT metric_id, aggregation, unique_property,
       EXISTS (SELECT FROM fact_deletion d WHERE d.organization_id = metric.organization_id
               AND d.kind = 'METRIC' AND d.customer_id = '' AND d.fact_id = metric.metric_id),
       event_name, event_filters, quantity_property, create_epoch, create_time
FROM metric WHERE organization_id = %(organization_id)s AND
"""


async def customers(
    connection: DriverConnection, organization_id: int, customer_ids: Iterable[str], *, with_alerts: bool = True
) -> list[CustomerFacts]:
    """Those of the customers that exist. with_alerts: with the alerts that name them."""
    ids = list(dict.fromkeys(customer_ids))
    rows = await _fetch(connection, _CUSTOMERS.on(connection), organization_id, ids=ids)
    found = [customer_of(row) for row in rows]
    return await with_alerts_of(connection, organization_id, found) if with_alerts else found


async def with_alerts_of(
    connection: DriverConnection, organization_id: int, found: list[CustomerFacts]
) -> list[CustomerFacts]:
    """Customers with the alerts that name them."""
    if not found:
        return found
    names = [customer.customer_id for customer in found]
    rules = await active_rules.rules_of_customers(connection, organization_id, names)
    if not rules:
        return found
    indexed, slices = list[CustomerFacts](), Slices(organization_id)
    await slices.begin()
    for customer in found:
        own = rules.get(customer.customer_id)
        indexed.append(customer if own is None else customer.with_alerts(AlertIndex(own)))
        await slices.pause()
    return indexed


async def subscriptions(
    connection: DriverConnection, organization_id: int, keys: Sequence[tuple[str, str]]
) -> list[SubscriptionFacts]:
    """Those of the subscriptions (customer id, subscription id) that exist."""
    rows = await _fetch(
        connection,
        _SUBSCRIPTIONS.on(connection),
        organization_id,
        customers=[customer_id for customer_id, _ in keys],
        subscriptions=[subscription_id for _, subscription_id in keys],
    )
    return [_subscription(row) for row in rows]


async def subscriptions_of(
    connection: DriverConnection, organization_id: int, customer_ids: Sequence[str]
) -> list[SubscriptionFacts]:
    """All subscriptions of those customers."""
    query = _SUBSCRIPTION + "customer_id = ANY(%(ids)s)"
    return [_subscription(row) for row in await _fetch(connection, query, organization_id, ids=list(customer_ids))]


async def first_subscriptions(
    connection: DriverConnection, organization_id: int, customer_id: str, limit: int
) -> list[SubscriptionFacts]:
    """The first subscriptions of a customer, by id."""
    query = _SUBSCRIPTION + "customer_id = %(customer_id)s ORDER BY subscription_id LIMIT %(limit)s"
    rows = await _fetch(connection, query, organization_id, customer_id=customer_id, limit=limit)
    return [_subscription(row) for row in rows]


async def metrics(connection: DriverConnection, organization_id: int, metric_ids: Iterable[str]) -> list[MetricFacts]:
    """Those of the metrics that exist."""
    query = _METRIC + "metric_id = ANY(%(ids)s)"
    return [_metric(row) for row in await _fetch(connection, query, organization_id, ids=list(metric_ids))]


async def raw_metrics(connection: DriverConnection, organization_id: int) -> list[MetricFacts]:
    """The metrics in which raw events count."""
    return [_metric(row) for row in await _fetch(connection, _METRIC + "event_name IS NOT NULL", organization_id)]


# Removes the notes of deletions, in the order of their keys: transactions with the same ones never deadlock.
_CANCEL_IN_ORDER = """
WITH noted AS (
    SELECT d.ctid FROM fact_deletion d
    JOIN unnest(%(customers)s::text[], %(facts)s::text[]) AS i (customer_id, fact_id)
        ON d.customer_id = i.customer_id COLLATE "C" AND d.fact_id = i.fact_id COLLATE "C"
    WHERE d.organization_id = %(organization_id)s AND d.kind = %(kind)s
    ORDER BY d.customer_id, d.fact_id FOR UPDATE OF d
)
DELETE FROM fact_deletion USING noted WHERE fact_deletion.ctid = noted.ctid
"""
# On a cluster, a statement that changes this table waits for the others that do.
_CANCEL = """
DELETE FROM fact_deletion d USING unnest(%(customers)s::text[], %(facts)s::text[]) AS i (customer_id, fact_id)
WHERE d.organization_id = %(organization_id)s AND d.kind = %(kind)s
    AND d.customer_id = i.customer_id COLLATE "C" AND d.fact_id = i.fact_id COLLATE "C"
"""
_CANCEL_DELETIONS = Forms(_CANCEL_IN_ORDER.encode(), _CANCEL.encode())


async def cancel_deletions(
    connection: DriverConnection, organization_id: int, kind: str, keys: Sequence[tuple[str, str]]
) -> None:
    """Keeps subscriptions or metrics that usage names although their deletion has begun.

    kind: of `store.accounts.deletions.FactKind`. keys: customer id (empty for metrics) and id.
    """
    parameters = {
        "organization_id": organization_id,
        "kind": kind,
        "customers": [customer_id for customer_id, _ in keys],
        "facts": [fact_id for _, fact_id in keys],
    }
    await connection.execute(_CANCEL_DELETIONS.on(connection), parameters)


# `register_…` returns what it registered itself. It waits for another transaction that registers the same, and leaves
# that out; the caller reads it afterwards.

# Registers customers with the default billing cycle. A shard cannot read other tables in RETURNING.
REGISTER_CUSTOMERS = """
INSERT INTO customer (
    organization_id, customer_id, anchor_time, cadence, interval_count, time_zone, create_time, update_time,
    changed_epoch
)
SELECT %(organization_id)s, id, %(anchor)s, %(cadence)s, %(count)s, %(zone)s, %(now)s, %(now)s, %(epoch)s
FROM unnest(%(ids)s::text[]) AS i (id)
ON CONFLICT DO NOTHING
RETURNING customer_id, currency, {columns}
"""
_REGISTER_AND_READ = Forms(
    REGISTER_CUSTOMERS.format(columns=f"{_EXCLUDED}, {LIMITS_COLUMN}").encode(),
    REGISTER_CUSTOMERS.format(columns="NULL, NULL").encode(),
)

# Registers subscriptions without a billing cycle of their own.
REGISTER_SUBSCRIPTIONS = """
INSERT INTO subscription (organization_id, customer_id, subscription_id, create_time, update_time, changed_epoch)
SELECT %(organization_id)s, customer, id, %(now)s, %(now)s, %(epoch)s
FROM unnest(%(customers)s::text[], %(ids)s::text[]) AS i (customer, id)
ON CONFLICT DO NOTHING
RETURNING customer_id, subscription_id
"""

# Registers metrics.
_REGISTER_METRICS = """
INSERT INTO metric (organization_id, metric_id, aggregation, create_time, update_time, changed_epoch)
SELECT %(organization_id)s, id, %(aggregation)s, %(now)s, %(now)s, %(epoch)s FROM unnest(%(ids)s::text[]) AS i (id)
ON CONFLICT DO NOTHING
RETURNING metric_id
"""


def new_customer(epoch: int, now: datetime) -> dict[str, Any]:
    """The parameters of REGISTER_CUSTOMERS beside the organization and the ids."""
    return {
        "anchor": DEFAULT_CYCLE.anchor,
        "cadence": DEFAULT_CYCLE.cadence.value,
        "count": DEFAULT_CYCLE.interval_count,
        "zone": DEFAULT_CYCLE.time_zone,
        "now": now,
        "epoch": epoch,
    }


async def register_customers(
    connection: DriverConnection, organization_id: int, customer_ids: Sequence[str], epoch: int, now: datetime
) -> list[CustomerFacts]:
    """Registers unknown customers (ids sorted) with the default billing cycle."""
    rows = await _fetch(
        connection,
        _REGISTER_AND_READ.on(connection),
        organization_id,
        ids=list(customer_ids),
        **new_customer(epoch, now),
    )
    if on_cluster(connection):
        return await customers(connection, organization_id, [row[0] for row in rows])
    made = [
        CustomerFacts(
            row[0], None, row[1], DEFAULT_CYCLE, epoch, now, excluded_of(row[2]), limits=read_column(row[3])
        )
        for row in rows
    ]
    return await with_alerts_of(connection, organization_id, made)  # an alert may be older than its customer


async def register_subscriptions(
    connection: DriverConnection, organization_id: int, keys: Sequence[tuple[str, str]], epoch: int, now: datetime
) -> list[SubscriptionFacts]:
    """Registers unknown subscriptions (keys sorted), which have the billing cycle of their customer."""
    rows = await _fetch(
        connection,
        REGISTER_SUBSCRIPTIONS,
        organization_id,
        customers=[customer_id for customer_id, _ in keys],
        ids=[subscription_id for _, subscription_id in keys],
        now=now,
        epoch=epoch,
    )
    return [SubscriptionFacts(row[0], row[1], None, None, None, epoch, now) for row in rows]


async def register_metrics(
    connection: DriverConnection, organization_id: int, metric_ids: Sequence[str], epoch: int, now: datetime
) -> list[str]:
    """Registers unknown metrics (ids sorted) with the aggregation SUM; returns the ids of those."""
    rows = await _fetch(
        connection,
        _REGISTER_METRICS,
        organization_id,
        ids=list(metric_ids),
        aggregation=Aggregation.SUM.value,
        now=now,
        epoch=epoch,
    )
    return [row[0] for row in rows]


async def _fetch(
    connection: DriverConnection, query: str | bytes, organization_id: int, **parameters: Any
) -> list[Row]:
    statement = query.encode() if isinstance(query, str) else query
    cursor = await connection.execute(statement, {"organization_id": organization_id, **parameters})
    return await cursor.fetchall()


@functools.lru_cache(maxsize=4096)
def _cycle(anchor: datetime, cadence: str, count: int, zone: str) -> BillingCycle:
    """A billing cycle; equal ones are one object, which keeps the period that it found last."""
    return BillingCycle(anchor, Cadence(cadence), count, zone)


def customer_of(row: Row) -> CustomerFacts:
    """The customer in a row with CUSTOMER_COLUMNS."""
    customer_id, plan_id, currency, anchor, cadence, count, zone, changed_epoch, update_time = row[:9]
    exclusions, end, limits, being_erased, parent_customer_id, below_change_time = row[9:]
    cycle = _cycle(anchor, cadence, count, zone)
    excluded, own = excluded_of(exclusions), read_column(limits)
    return CustomerFacts(
        customer_id,
        plan_id,
        currency,
        cycle,
        changed_epoch,
        update_time,
        excluded,
        end,
        own,
        being_erased,
        parent_customer_id=parent_customer_id,
        below_change_time=below_change_time,
    )


def excluded_of(pairs: Iterable[tuple[str, str]] | None) -> frozenset[tuple[str, str | None]]:
    """The exclusions in a column _EXCLUDED: alert id, and subscription id or None for all of the customer."""
    return frozenset((alert_id, subscription_id or None) for alert_id, subscription_id in pairs or ())


def _subscription(row: Row) -> SubscriptionFacts:
    customer_id, subscription_id, plan_id, currency, anchor, cadence, count, zone = row[:8]
    changed_epoch, update_time, custom_fields, deleting = row[8:]
    cycle = None if anchor is None else _cycle(anchor, cadence, count, zone)
    return SubscriptionFacts(
        customer_id,
        subscription_id,
        plan_id,
        currency,
        cycle,
        changed_epoch,
        update_time,
        custom_fields or NO_FIELDS,
        deleting,
    )


def _metric(row: Row) -> MetricFacts:
    metric_id, aggregation, unique_property, deleting, event_name, filters, amounts, create_epoch, create_time = row
    raw_events = None
    if event_name is not None:
        read = event_filters_from_json(filters)
        raw_events = RawEvents(event_name, read, amounts, create_epoch, create_time)
    return MetricFacts(metric_id, Aggregation(aggregation), unique_property, deleting, raw_events)
