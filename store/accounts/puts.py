"""Puts: replacing a row of facts, unless it holds a newer one."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, or_, select, true, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from store.identity import organizations


async def put_fact(
    connection: AsyncConnection,
    table: Table,
    key: dict[str, Any],
    facts: dict[str, Any],
    as_of_time: datetime,
    now: datetime,
    fixed: tuple[str, ...] = (),
) -> int | None:
    """Creates or replaces the row with that key, unless it holds a newer fact.

    `facts` are the columns that the caller states; a row whose columns named in `fixed` have other values is
    left alone. The organization's epoch rises when something changes; returned is the new one, or None.
    """
    stored_time = await connection.execute(select(table.c.as_of_time).where(_has(table, key)))
    if (row := stored_time.one_or_none()) is not None and row.as_of_time and row.as_of_time > as_of_time:
        return None

    # A billing system repeats what it knows, and what says nothing new must not hold up ingest to raise the
    # epoch: it only makes the fact younger. The conditions are the statement's own because the row may have
    # changed since it was read.
    not_newer = or_(table.c.as_of_time.is_(None), table.c.as_of_time <= as_of_time)
    confirmed = await connection.execute(
        update(table)
        .where(_has(table, key), _states(table, facts), not_newer)
        .values(as_of_time=as_of_time)
        .returning(table.c.as_of_time)
    )
    if confirmed.one_or_none() is not None:
        return None

    epoch = await organizations.change(connection, key["organization_id"])
    changed = {**facts, "as_of_time": as_of_time, "update_time": now, "changed_epoch": epoch}
    await connection.execute(
        insert(table)
        .values(**key, **changed, create_time=now)
        .on_conflict_do_update(
            index_elements=list(key),
            set_=changed,
            where=and_(not_newer, _states(table, {name: facts[name] for name in fixed})),
        )
    )
    return epoch


def _has(table: Table, key: dict[str, Any]) -> ColumnElement[bool]:
    return and_(*(table.c[name] == value for name, value in key.items()))


def _states(table: Table, facts: dict[str, Any]) -> ColumnElement[bool]:
    return and_(true(), *(table.c[name].is_not_distinct_from(value) for name, value in facts.items()))
