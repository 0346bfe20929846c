"""Puts of facts where the tables are distributed: the same as the single statements of one PostgreSQL, step by step.

A statement on several tables of which one is on the coordinator cannot be executed there, nor one that takes each row
by its key for a list of keys. So each step is a statement of its own, and what is to be noted is decided in between.
The lock of the organization, which the transaction holds, keeps other puts and ingest away meanwhile.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from psycopg.rows import dict_row

from store.accounts.customer_evaluations import NOTE
from store.accounts.put_statements import StatedTable, encoded
from store.postgres.database import DriverConnection

Values = dict[str, Any]

# Facts that are stored already, but as of an earlier time.
_CONFIRM = """
WITH {input}
UPDATE {table} t SET as_of_time = i.as_of_time
FROM input i
WHERE t.organization_id = %(organization_id)s AND {is_scoped} AND {is_key}
    AND {same} AND (t.as_of_time > i.as_of_time) IS NOT TRUE
RETURNING i.position, {columns}
"""
_SUPERSEDING = """
WITH {input}
SELECT i.position, {columns}, (t.as_of_time > i.as_of_time) IS TRUE AS superseded
FROM {table} t JOIN input i ON {is_key}
WHERE t.organization_id = %(organization_id)s AND {is_scoped}
    AND (t.as_of_time > i.as_of_time OR (NOT %(change)s AND {same_locked} AND NOT {same}))
"""
_BEFORE = """
WITH {input}
SELECT {columns} FROM {table} t JOIN input i ON {is_key}
WHERE t.organization_id = %(organization_id)s AND {is_scoped}
"""
_ERASED = "SELECT customer_id FROM erasure_job WHERE organization_id = %s AND customer_id = ANY(%s)"
_NOTED = "SELECT customer_id FROM customer_evaluation WHERE organization_id = %s AND customer_id = ANY(%s)"
_NOTE = NOTE.format(
    changed="""
        SELECT customer_id, facts, usage, subscriptions, limit_unit FROM json_to_recordset(%(noted)s::json) AS n (
            customer_id text COLLATE "C", facts boolean, usage boolean, subscriptions boolean, limit_unit text
        )
    """
).encode()


def note(
    customer_id: str,
    *,
    facts: bool = False,
    usage: bool = False,
    subscriptions: bool = False,
    limit_unit: str | None = None,
) -> Values:
    """What has to be evaluated for a customer; see `store.accounts.customer_evaluations.Note`."""
    return {
        "customer_id": customer_id,
        "facts": facts,
        "usage": usage,
        "subscriptions": subscriptions,
        "limit_unit": limit_unit,
    }


async def put_unlocked(
    table: StatedTable,
    connection: DriverConnection,
    organization_id: int,
    facts: Sequence[Mapping[str, Any]],
    *,
    change: bool,
) -> dict[int, Values]:
    """As `StatedTable.put_unlocked`, but facts that change unlocked columns are left to the put under the lock."""
    parameters = {**_parameters(organization_id, facts), "change": change}
    confirmed = await _rows(connection, _statement(table, _CONFIRM), parameters)
    older = await _rows(connection, _statement(table, _SUPERSEDING), parameters)
    rows = [{"superseded": False, "same": True, **row} for row in confirmed]
    rows += [{"same": row["superseded"], **row} for row in older]
    noted = await noted_of(connection, organization_id, _customers_of(rows))
    return {
        row["position"]: {
            **row,
            "noted": row["customer_id"] in noted,
            **{f"before_{name}": row[name] for name in table.columns},
        }
        for row in rows
    }


async def before(
    table: StatedTable, connection: DriverConnection, organization_id: int, facts: Sequence[Mapping[str, Any]]
) -> dict[tuple[str, ...], Values]:
    """The stored rows of the facts, by their keys."""
    rows = await _rows(connection, _statement(table, _BEFORE), _parameters(organization_id, facts))
    return {_key(table, row): row for row in rows}


async def store(
    table: StatedTable,
    connection: DriverConnection,
    organization_id: int,
    facts: Sequence[Mapping[str, Any]],
    parameters: Mapping[str, Any],
) -> dict[tuple[str, ...], Values]:
    """Stores facts with `StatedTable.upsert`; returns the rows that it stored, by their keys.

    parameters: those of `upsert` besides the facts.
    """
    statement = f"WITH {table.input} {table.upsert.format(wanted=_is_scoped(table, 'i'))}".encode()
    rows = await _rows(connection, statement, {**parameters, **_parameters(organization_id, facts)})
    return {_key(table, row): row for row in rows}


async def erased_of(connection: DriverConnection, organization_id: int, customer_ids: set[str]) -> set[str]:
    """Those of the customers that are being erased."""
    cursor = await connection.execute(_ERASED, (organization_id, sorted(customer_ids)))
    return {row[0] for row in await cursor.fetchall()}


async def noted_of(connection: DriverConnection, organization_id: int, customer_ids: set[str]) -> set[str]:
    """Those of the customers that still have to be evaluated."""
    cursor = await connection.execute(_NOTED, (organization_id, sorted(customer_ids)))
    return {row[0] for row in await cursor.fetchall()}


async def add_notes(connection: DriverConnection, notes: Sequence[Values], parameters: Mapping[str, Any]) -> None:
    """Notes customers. parameters: organization_id, epoch, now and due_time."""
    if notes:
        await connection.execute(_NOTE, {**parameters, "noted": orjson.dumps(notes).decode()})


def same_routes(table: StatedTable, left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    """As `StatedTable.same_routes`, of rows."""
    return all(left[name] == right[name] for name in table.stated if name not in table.unrouted)


def row_of(table: StatedTable, fact: Mapping[str, Any], put: Values | None, stored_before: Values | None) -> Values:
    """What the single statements return of a fact: its row as it is now, and as it was."""
    present = put or stored_before or dict.fromkeys(table.columns)
    return {
        **{name: present[name] for name in table.columns},
        **{f"before_{name}": (stored_before or {}).get(name) for name in table.columns},
        "superseded": put is None,
        "customer_id": fact["customer_id"],
    }


def _key(table: StatedTable, row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(row[name] for name in table.key)


def _parameters(organization_id: int, facts: Sequence[Mapping[str, Any]]) -> Values:
    return {
        "organization_id": organization_id,
        "facts": encoded(facts),
        "customer_ids": sorted(_customers_of(facts)),
    }


def _customers_of(facts: Iterable[Mapping[str, Any]]) -> set[str]:
    """The customers that facts are about; a limit may be of a plan."""
    return {fact["customer_id"] for fact in facts if fact["customer_id"] is not None}


def _is_scoped(table: StatedTable, row: str) -> str:
    """A condition that names the shards: true where the table lies on each node."""
    return f"{row}.customer_id = ANY(%(customer_ids)s)" if "customer_id" in table.key else "true"


def _statement(table: StatedTable, form: str) -> bytes:
    return form.format(
        input=table.input,
        table=table.name,
        columns=table.listed("t."),
        is_scoped=_is_scoped(table, "t"),
        is_key=table.is_key("t", "i"),
        same=table.same("t", "i"),
        same_locked=table.same("t", "i", but=table.unlocked),
    ).encode()


async def _rows(connection: DriverConnection, statement: bytes, parameters: Mapping[str, Any]) -> list[Values]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement, parameters)
        return await cursor.fetchall()
