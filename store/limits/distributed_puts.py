"""Puts of limits where the tables of customers are distributed: as `store.limits.changes`, step by step.

The limits lie on each node, and what has to be evaluated on the coordinator, so no statement is about both. Each step
is a statement of its own; see `store.accounts.distributed_puts`. No put is quiet.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evaluator.balances import Unit
from store.accounts import distributed_puts
from store.accounts.distributed_puts import Values
from store.accounts.put_statements import StatedTable
from store.postgres.database import DriverConnection

# The limits that have the subjects already.
_OTHERS = b"""
SELECT natural_key, limit_id FROM usage_limit
WHERE organization_id = %(organization_id)s AND natural_key = ANY(%(natural_keys)s) AND NOT deleted
"""
# The metrics whose usage cannot be added up.
_UNENFORCEABLE = b"""
SELECT metric_id, aggregation FROM metric
WHERE organization_id = %(organization_id)s AND metric_id = ANY(%(metric_ids)s) AND aggregation <> ALL (%(additive)s)
"""
# The rows of deleted limits have the natural keys of their subjects.
_FORGET_DELETED = b"""
DELETE FROM usage_limit WHERE organization_id = %(organization_id)s AND limit_id = ANY(%(deleted_ids)s)
"""


async def put(
    table: StatedTable, connection: DriverConnection, facts: Sequence[Values], parameters: Mapping[str, Any]
) -> dict[int, Values]:
    """Does and returns what the one statement of `store.limits.changes.put` does. parameters: of that statement."""
    organization_id = parameters["organization_id"]
    customer_ids = {fact["customer_id"] for fact in facts if fact["customer_id"] is not None}
    erased = await distributed_puts.erased_of(connection, organization_id, customer_ids)
    before = await distributed_puts.before(table, connection, organization_id, facts)
    natural_keys = [fact["natural_key"] for fact in facts if (fact["limit_id"],) not in before]
    others = await _pairs(connection, _OTHERS, {**parameters, "natural_keys": natural_keys})
    metric_ids = [fact["metric_id"] for fact in facts if fact["enforcement"] != "NONE" and fact["metric_id"]]
    unenforceable = await _pairs(connection, _UNENFORCEABLE, {**parameters, "metric_ids": metric_ids})
    rows = dict[int, Values]()
    wanted = list[Values]()
    for position, fact in enumerate(facts):
        was = before.get((fact["limit_id"],))
        row = rows[position] = {
            "erased": fact["customer_id"] in erased,
            "other_id": others.get(fact["natural_key"]) if was is None else None,
            "unenforceable": unenforceable.get(fact["metric_id"]) if fact["enforcement"] != "NONE" else None,
        }
        is_same = was is None or was["natural_key"] == fact["natural_key"]
        if is_same and not row["erased"] and row["other_id"] is None and row["unenforceable"] is None:
            wanted.append(fact)
    stored = await _store(table, connection, wanted, parameters)
    await distributed_puts.add_notes(connection, _notes(stored.values()), parameters)
    noted = await distributed_puts.noted_of(connection, organization_id, customer_ids)
    for position, fact in enumerate(facts):
        is_put, was = stored.get((fact["limit_id"],)), before.get((fact["limit_id"],))
        present = is_put or was or dict.fromkeys(table.columns)
        rows[position] |= {
            **{name: present[name] for name in table.columns},
            **{f"before_{name}": (was or {}).get(name) for name in table.columns},
            "changed": is_put is not None,
            "noted": fact["customer_id"] in noted,
        }
    return rows


async def _store(
    table: StatedTable, connection: DriverConnection, facts: Sequence[Values], parameters: Mapping[str, Any]
) -> dict[tuple[str, ...], Values]:
    if not facts:
        return {}
    deleted_ids = [parameters["deleted"] + fact["natural_key"] for fact in facts]
    await connection.execute(_FORGET_DELETED, {**parameters, "deleted_ids": deleted_ids})
    return await distributed_puts.store(table, connection, parameters["organization_id"], facts, parameters)


def _notes(stored: Iterable[Values]) -> list[Values]:
    """What has to be evaluated of changed limits: see `_CHANGED` in `store.limits.changes`."""
    return [
        distributed_puts.note(
            row["customer_id"],
            facts=row["metric_id"] is None and row["groups"] == [],
            limit_unit=Unit(row["currency"], row["metric_id"]).key,
        )
        for row in stored
        if row["customer_id"] is not None and row["window_kind"] is None
    ]


async def _pairs(connection: DriverConnection, statement: bytes, parameters: Mapping[str, Any]) -> dict[str, str]:
    cursor = await connection.execute(statement, parameters)
    return dict[str, str](await cursor.fetchall())
