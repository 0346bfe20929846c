"""Puts of subscriptions: their statements, and the notes of the customers that have to be evaluated."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from evaluator.periods import DEFAULT_CYCLE
from store.accounts import distributed_puts
from store.accounts.billing_cycles import CYCLE_COLUMNS, cycle_columns
from store.accounts.customer_evaluations import NOTE, OWN_TIME
from store.accounts.put_statements import CYCLE, TEXT, TIME, StatedTable, encoded, fetched
from store.accounts.puts import Put, UnlockedPut
from store.accounts.subscriptions import StoredSubscription, SubscriptionFact, subscription_from
from store.erasures.jobs import CustomerBeingErased
from store.postgres.database import DriverConnection
from store.postgres.distributed import Forms, on_cluster

# What no router reads of a subscription.
_UNROUTED = frozenset({"display_name", "plan_start_time", "plan_end_time", "start_time", "end_time"})

_TABLE = StatedTable(
    "subscription",
    ("customer_id", "subscription_id"),
    {
        "display_name": "text",
        "plan_id": TEXT,
        "plan_start_time": TIME,
        "plan_end_time": TIME,
        "currency": TEXT,
        "custom_fields": "jsonb",
        "start_time": TIME,
        "end_time": TIME,
        **CYCLE,
    },
    unlocked=_UNROUTED,
    unrouted=_UNROUTED,
)

# A new customer has alerts on facts. A new subscription has no usage, which would have registered it. With custom
# fields, other usage of the customer may be billed under it.
_NOTE = NOTE.format(
    changed=f"""
        SELECT customer_id, true, false, false, NULL::text FROM created
        UNION ALL SELECT p.customer_id, false, false, true, NULL
        FROM put p LEFT JOIN before b USING (customer_id, subscription_id)
        WHERE CASE WHEN b.customer_id IS NULL THEN p.custom_fields <> '{{}}'
            ELSE NOT {_TABLE.same_routes("p", "b")} END
    """
)

# The billing cycle of a customer `c`, beside the columns of its subscription.
_CUSTOMER_CYCLE = ", ".join(f"c.{name} AS customer_{name}" for name in CYCLE_COLUMNS)

# Stores subscriptions, except those of customers that are being erased; creates their customers, and notes them.
_PUT = f"""
WITH {_TABLE.input}, {_TABLE.before}, erased AS MATERIALIZED (
    SELECT j.customer_id FROM input i JOIN erasure_job j
        ON j.organization_id = %(organization_id)s AND j.customer_id = i.customer_id
), created AS (
    INSERT INTO customer (
        organization_id, customer_id, anchor_time, cadence, interval_count, time_zone, create_time, update_time,
        changed_epoch
    )
    SELECT DISTINCT %(organization_id)s::bigint, i.customer_id, %(anchor)s::timestamptz, %(cadence)s,
           %(interval_count)s::integer, %(time_zone)s, %(now)s::timestamptz, %(now)s::timestamptz, %(epoch)s::bigint
    FROM input i WHERE i.customer_id NOT IN (SELECT customer_id FROM erased)
    ORDER BY i.customer_id
    ON CONFLICT DO NOTHING
    RETURNING customer_id
), put AS ({_TABLE.upsert.format(wanted="i.customer_id NOT IN (SELECT customer_id FROM erased)")}
), contracts AS (
    -- Other cost than before may count for these customers, whose gauges have to be counted anew.
    UPDATE customer c SET changed_epoch = %(epoch)s, contracts_change_time = %(now)s
    WHERE c.organization_id = %(organization_id)s AND c.customer_id IN (
        SELECT p.customer_id FROM put p LEFT JOIN before b USING (customer_id, subscription_id)
        WHERE p.custom_fields <> coalesce(b.custom_fields, '{{}}')
    )
), noted AS ({_NOTE} RETURNING e.customer_id)
SELECT i.position, i.customer_id IN (SELECT customer_id FROM erased) AS erased,
       p.customer_id IS NULL AS superseded,
       EXISTS (SELECT FROM noted n WHERE n.customer_id = i.customer_id) OR EXISTS (
           SELECT FROM customer_evaluation n
           WHERE n.organization_id = %(organization_id)s AND n.customer_id = i.customer_id
       ) AS noted,
       {_CUSTOMER_CYCLE}, {_TABLE.either("p", "b")}, {_TABLE.before_columns("b")}
FROM input i LEFT JOIN put p USING (customer_id, subscription_id)
LEFT JOIN before b USING (customer_id, subscription_id)
LEFT JOIN LATERAL (
    -- Empty for a customer that this statement creates, which has the default cycle.
    SELECT {", ".join(CYCLE_COLUMNS)} FROM customer
    WHERE organization_id = %(organization_id)s AND customer_id = i.customer_id LIMIT 1
) AS c ON true
""".encode()

# Each customer is taken by its key: see `_CUSTOMERS` in `store.rules.routing_facts`.
_CYCLES_BY_KEY = f"""
SELECT c.customer_id, {_CUSTOMER_CYCLE}
FROM (SELECT DISTINCT unnest(%(ids)s::text[]) AS customer_id) AS i CROSS JOIN LATERAL (
    SELECT * FROM customer
    WHERE organization_id = %(organization_id)s AND customer_id = i.customer_id COLLATE "C" LIMIT 1
) AS c
"""
_CYCLES_OF_ALL = f"""
SELECT c.customer_id, {_CUSTOMER_CYCLE} FROM customer c
WHERE c.organization_id = %(organization_id)s AND c.customer_id = ANY(%(ids)s)
"""
_CUSTOMER_CYCLES = Forms(_CYCLES_BY_KEY.encode(), _CYCLES_OF_ALL.encode())
_NO_CYCLE = {f"customer_{name}": None for name in CYCLE_COLUMNS}


async def put_unlocked(
    connection: DriverConnection,
    organization_id: int,
    facts: Sequence[SubscriptionFact],
    now: datetime,
    *,
    change: bool,
) -> dict[int, UnlockedPut[StoredSubscription]]:
    """Puts those facts that need no lock of the organization, by their index; see `StatedTable.put_unlocked`.

    The subscriptions are distinct.
    """
    columns = [_columns(fact) for fact in facts]
    if on_cluster(connection):
        rows = await distributed_puts.put_unlocked(_TABLE, connection, organization_id, columns, change=change)
    else:
        rows = await _TABLE.put_unlocked(connection, organization_id, columns, now, change=change)
    stored = await _with_cycles(connection, organization_id, rows)
    return {
        position: UnlockedPut(
            after, rows[position]["superseded"], rows[position]["noted"], None if rows[position]["same"] else before
        )
        for position, (after, before) in stored.items()
    }


async def put(
    connection: DriverConnection, organization_id: int, facts: Sequence[SubscriptionFact], epoch: int, now: datetime
) -> list[Put[StoredSubscription] | CustomerBeingErased]:
    """Stores the facts, unless newer ones are stored, and notes which customers have to be evaluated.

    Creates customers that do not exist, with defaults. The transaction holds the organization's lock exclusively and
    has raised the epoch to this one. The subscriptions are distinct.
    """
    parameters = {
        "organization_id": organization_id,
        "epoch": epoch,
        "now": now,
        "due_time": now + OWN_TIME,
        "anchor": DEFAULT_CYCLE.anchor,
        "cadence": DEFAULT_CYCLE.cadence.value,
        "interval_count": DEFAULT_CYCLE.interval_count,
        "time_zone": DEFAULT_CYCLE.time_zone,
    }
    columns = [_columns(fact) for fact in facts]
    if on_cluster(connection):
        rows = await _put_distributed(connection, columns, parameters)
    else:
        rows = await fetched(connection, _PUT, {**parameters, "facts": encoded(columns)})
    found: list[Put[StoredSubscription] | CustomerBeingErased] = []
    for position, fact in enumerate(facts):
        row = rows[position]
        if row["erased"]:
            found.append(CustomerBeingErased(fact.customer_id))
        else:
            of_organization = {"organization_id": organization_id, **row}
            stored, previous = subscription_from(of_organization), _before(of_organization)
            superseded, noted = row["superseded"], row["noted"]
            found.append(
                Put(
                    stored,
                    superseded=superseded,
                    changed=not superseded,
                    epoch=epoch,
                    previous=previous,
                    noted=noted,
                )
            )
    return found


_CREATE_CUSTOMERS = """
INSERT INTO customer (
    organization_id, customer_id, anchor_time, cadence, interval_count, time_zone, create_time, update_time,
    changed_epoch
)
SELECT %(organization_id)s::bigint, id, %(anchor)s::timestamptz, %(cadence)s, %(interval_count)s::integer,
       %(time_zone)s, %(now)s::timestamptz, %(now)s::timestamptz, %(epoch)s::bigint
FROM unnest(%(ids)s::text[]) AS i (id)
ON CONFLICT DO NOTHING
RETURNING customer_id
"""
_CHANGE_CONTRACTS = """
UPDATE customer SET changed_epoch = %(epoch)s, contracts_change_time = %(now)s
WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(ids)s)
"""


async def _put_distributed(
    connection: DriverConnection, facts: Sequence[dict[str, Any]], parameters: dict[str, Any]
) -> dict[int, dict[str, Any]]:
    """What `_PUT` does and returns, where the tables are distributed."""
    organization_id, ids = parameters["organization_id"], {fact["customer_id"] for fact in facts}
    erased = await distributed_puts.erased_of(connection, organization_id, ids)
    before = await distributed_puts.before(_TABLE, connection, organization_id, facts)
    cursor = await connection.execute(_CREATE_CUSTOMERS, {**parameters, "ids": sorted(ids - erased)})
    created = [row[0] for row in await cursor.fetchall()]
    kept = [fact for fact in facts if fact["customer_id"] not in erased]
    stored = await distributed_puts.store(_TABLE, connection, organization_id, kept, parameters)
    contracts, notes = set[str](), [distributed_puts.note(one, facts=True) for one in created]
    for key, row in stored.items():
        was = before.get(key)
        if row["custom_fields"] != (was["custom_fields"] if was else {}):
            contracts.add(key[0])
        if row["custom_fields"] if was is None else not distributed_puts.same_routes(_TABLE, row, was):
            notes.append(distributed_puts.note(key[0], subscriptions=True))
    # As in one statement, which does not see the customers that it creates.
    if contracts := contracts.difference(created):
        await connection.execute(_CHANGE_CONTRACTS, {**parameters, "ids": sorted(contracts)})
    await distributed_puts.add_notes(connection, notes, parameters)
    noted = await distributed_puts.noted_of(connection, organization_id, ids)
    cycles = await _cycles(connection, organization_id, ids)
    return {
        position: {
            **cycles.get(fact["customer_id"], _NO_CYCLE),
            **distributed_puts.row_of(_TABLE, fact, stored.get(key), before.get(key)),
            "erased": fact["customer_id"] in erased,
            "noted": fact["customer_id"] in noted,
        }
        for position, fact in enumerate(facts)
        for key in [(fact["customer_id"], fact["subscription_id"])]
    }


async def _cycles(
    connection: DriverConnection, organization_id: int, customer_ids: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """The billing cycles of customers, in rows with the columns of _CUSTOMER_CYCLE."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        parameters = {"organization_id": organization_id, "ids": list(customer_ids)}
        await cursor.execute(_CUSTOMER_CYCLES.on(connection), parameters)
        return {row["customer_id"]: row for row in await cursor.fetchall()}


async def _with_cycles(
    connection: DriverConnection, organization_id: int, rows: Mapping[int, Mapping[str, Any]]
) -> dict[int, tuple[StoredSubscription, StoredSubscription | None]]:
    """The subscriptions in these rows, after and before their puts, with the billing cycles of their customers."""
    if not rows:
        return {}
    cycles = await _cycles(connection, organization_id, [row["customer_id"] for row in rows.values()])
    found = dict[int, tuple[StoredSubscription, StoredSubscription | None]]()
    for position, row in rows.items():
        whole = {"organization_id": organization_id, **cycles[row["customer_id"]], **row}
        found[position] = subscription_from(whole), _before(whole)
    return found


def _before(row: Mapping[str, Any]) -> StoredSubscription | None:
    """The subscription before its put. row: with the organization and the cycle of the customer."""
    before = _TABLE.before_of(row)
    return None if before is None else subscription_from({**row, **before})


def _columns(fact: SubscriptionFact) -> dict[str, Any]:
    """What the fact states, by column."""
    return {
        "customer_id": fact.customer_id,
        "subscription_id": fact.subscription_id,
        "display_name": fact.display_name,
        "plan_id": fact.plan_id,
        "plan_start_time": fact.plan_start_time,
        "plan_end_time": fact.plan_end_time,
        "currency": fact.currency,
        "custom_fields": fact.custom_fields,
        "start_time": fact.start_time,
        "end_time": fact.end_time,
        "as_of_time": fact.as_of_time,
        **cycle_columns(fact.cycle),
    }
