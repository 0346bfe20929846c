"""Puts of customers: their statements, and the notes of those that have to be evaluated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from store.accounts import distributed_puts, quiet_puts
from store.accounts.billing_cycles import cycle_columns
from store.accounts.customer_evaluations import OWN_TIME
from store.accounts.customers import CustomerFact, StoredCustomer, customer_from
from store.accounts.put_statements import COLLATED, CYCLE, TEXT, TIME, StatedTable, encoded, fetched
from store.accounts.puts import Put, UnlockedPut
from store.accounts.quiet_puts import QuietPut
from store.erasures import customers_above
from store.erasures.jobs import CustomerBeingErased
from store.postgres.database import DriverConnection
from store.postgres.distributed import on_cluster


@dataclass(frozen=True)
class CustomerPut:
    """A customer that was put under the lock. names_changed: `replace_names` has to follow."""

    put: Put[StoredCustomer]
    names_changed: bool


_TABLE = StatedTable(
    "customer",
    ("customer_id",),
    {
        "display_name": "text",
        "external_id": TEXT,
        "aliases": f"text[] {COLLATED}",
        "plan_id": TEXT,
        "plan_start_time": TIME,
        "plan_end_time": TIME,
        "currency": TEXT,
        "custom_fields": "jsonb",
        "parent_customer_id": TEXT,
        **CYCLE,
    },
    unlocked=frozenset({"display_name", "plan_start_time", "custom_fields"}),
    # A name must not be given to two customers, so it changes under the lock.
    unrouted=frozenset({"display_name", "plan_start_time", "custom_fields", "external_id", "aliases"}),
)

# A new customer has no usage yet.
_CHANGED = f"""
    SELECT p.customer_id, true, b.customer_id IS NOT NULL, false, NULL::text
    FROM put p LEFT JOIN before b USING (customer_id)
    WHERE b.customer_id IS NULL OR NOT {_TABLE.same_routes("p", "b")}
"""

# Stores customers, except those that are being erased, and notes those whose routes change, unless they are quiet.
_PUT = f"""
WITH {_TABLE.input}, {_TABLE.before}, erased AS MATERIALIZED (
    SELECT j.customer_id FROM input i JOIN erasure_job j
        ON j.organization_id = %(organization_id)s AND j.customer_id = i.customer_id
), put AS ({_TABLE.upsert.format(wanted="i.customer_id NOT IN (SELECT customer_id FROM erased)")}
), {quiet_puts.evaluations(_CHANGED)}
SELECT i.position, i.customer_id IN (SELECT customer_id FROM erased) AS erased,
       p.customer_id IS NULL AS superseded, {quiet_puts.IS_NOTED} AS noted,
       (p.external_id, p.aliases) IS DISTINCT FROM (b.external_id, coalesce(b.aliases, '{{}}')) AS names_changed,
       {_TABLE.either("p", "b")}, {_TABLE.before_columns("b")}
FROM input i LEFT JOIN put p USING (customer_id) LEFT JOIN before b USING (customer_id)
""".encode()


async def put_unlocked(
    connection: DriverConnection, organization_id: int, facts: Sequence[CustomerFact], now: datetime, *, change: bool
) -> dict[int, UnlockedPut[StoredCustomer]]:
    """Puts those facts that need no lock of the organization, by their index; see `StatedTable.put_unlocked`.

    The customers are distinct.
    """
    columns = [_columns(fact) for fact in facts]
    if on_cluster(connection):
        rows = await distributed_puts.put_unlocked(_TABLE, connection, organization_id, columns, change=change)
    else:
        rows = await _TABLE.put_unlocked(connection, organization_id, columns, now, change=change)
    return {
        position: UnlockedPut(
            customer_from({"organization_id": organization_id, **row}),
            row["superseded"],
            row["noted"],
            None if row["same"] else _before(organization_id, row),
        )
        for position, row in rows.items()
    }


async def put(
    connection: DriverConnection,
    organization_id: int,
    facts: Sequence[CustomerFact],
    epoch: int,
    now: datetime,
    quiet: Sequence[QuietPut | None] = (),
) -> list[CustomerPut | CustomerBeingErased]:
    """Stores the facts, unless newer ones are stored, and notes which customers have to be evaluated.

    The transaction holds the organization's lock exclusively and has raised the epoch to this one. The customers are
    distinct. quiet: the puts that may be quiet, if no other change follows at this epoch.
    """
    parameters = {
        "organization_id": organization_id,
        "epoch": epoch,
        "now": now,
        "due_time": now + OWN_TIME,
    }
    columns = [_columns(fact) for fact in facts]
    if on_cluster(connection):
        rows = await _put_distributed(connection, columns, parameters)
    else:
        of_statement = {**parameters, "facts": encoded(columns), **quiet_puts.parameters(quiet)}
        rows = await fetched(connection, _PUT, of_statement)
    found: list[CustomerPut | CustomerBeingErased] = []
    for position, fact in enumerate(facts):
        row = rows[position]
        if row["erased"]:
            found.append(CustomerBeingErased(fact.customer_id))
            continue
        stored = customer_from({"organization_id": organization_id, **row})
        changed = not row["superseded"]
        found.append(
            CustomerPut(
                Put(
                    stored,
                    superseded=not changed,
                    changed=changed,
                    epoch=epoch,
                    previous=_before(organization_id, row),
                    noted=row["noted"],
                ),
                names_changed=changed and row["names_changed"],
            )
        )
    await customers_above.note_change_below(connection, organization_id, _parents_of_moved(found), epoch, now)
    return found


async def _put_distributed(
    connection: DriverConnection, facts: Sequence[dict[str, Any]], parameters: dict[str, Any]
) -> dict[int, dict[str, Any]]:
    """What `_PUT` does and returns, where the tables are distributed; no put is quiet."""
    organization_id, ids = parameters["organization_id"], {fact["customer_id"] for fact in facts}
    erased = await distributed_puts.erased_of(connection, organization_id, ids)
    before = await distributed_puts.before(_TABLE, connection, organization_id, facts)
    kept = [fact for fact in facts if fact["customer_id"] not in erased]
    stored = await distributed_puts.store(_TABLE, connection, organization_id, kept, parameters)
    notes = [
        distributed_puts.note(key[0], facts=True, usage=key in before)
        for key, row in stored.items()
        if key not in before or not distributed_puts.same_routes(_TABLE, row, before[key])
    ]
    await distributed_puts.add_notes(connection, notes, parameters)
    noted = await distributed_puts.noted_of(connection, organization_id, ids)
    rows = dict[int, dict[str, Any]]()
    for position, fact in enumerate(facts):
        key = (fact["customer_id"],)
        was, put = before.get(key), stored.get(key)
        rows[position] = {
            **distributed_puts.row_of(_TABLE, fact, put, was),
            "erased": key[0] in erased,
            "noted": key[0] in noted,
            "names_changed": put is not None and _names(put) != _names(was),
        }
    return rows


def _names(row: Mapping[str, Any] | None) -> tuple[str | None, list[str]]:
    return (None, []) if row is None else (row["external_id"], row["aliases"])


def _parents_of_moved(puts: Sequence[CustomerPut | CustomerBeingErased]) -> set[str]:
    """The former and the present parents of customers that have moved.

    What counts the usage below them is counted anew: it has lost, or got, the usage of the customer so far.
    """
    parents = set[str]()
    for one in puts:
        # A new customer, and one that only changes in another way, moves no usage.
        if isinstance(one, CustomerPut) and one.put.changed and (previous := one.put.previous) is not None:
            before, now = previous.parent_customer_id, one.put.stored.parent_customer_id
            if before != now:
                parents |= {parent for parent in (before, now) if parent is not None}
    return parents


def _before(organization_id: int, row: Mapping[str, Any]) -> StoredCustomer | None:
    before = _TABLE.before_of(row)
    return None if before is None else customer_from({"organization_id": organization_id, **before})


def _columns(fact: CustomerFact) -> dict[str, Any]:
    """What the fact states, by column."""
    return {
        "customer_id": fact.customer_id,
        "display_name": fact.display_name,
        "external_id": fact.external_id,
        "aliases": fact.aliases,
        "plan_id": fact.plan_id,
        "plan_start_time": fact.plan_start_time,
        "plan_end_time": fact.plan_end_time,
        "currency": fact.currency,
        "custom_fields": fact.custom_fields,
        "parent_customer_id": fact.parent_customer_id,
        "as_of_time": fact.as_of_time,
        **cycle_columns(fact.cycle),
    }
