"""Puts: a fact replaces the stored one, unless that is newer."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Table, and_, or_, select, true, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from store.identity import organizations

Stored = TypeVar("Stored")


@dataclass(frozen=True)
class Put(Generic[Stored]):
    """The result of a put.

    stored: what is stored afterwards. superseded: a newer fact is stored, so this one was not. changed: the fact says
    something new. epoch: the organization's new epoch if the put raised it; the transaction then holds the
    organization's lock. previous: what was stored before, for facts whose old values have to be evaluated.
    """

    stored: Stored
    superseded: bool = False
    changed: bool = False
    epoch: int | None = None
    previous: Stored | None = None


def is_newer(stored_time: datetime | None, as_of_time: datetime) -> bool:
    """Whether the stored fact is newer than one of `as_of_time`. A fact that only usage implied is never newer."""
    return stored_time is not None and stored_time > as_of_time


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

    `facts` are the columns that the caller states; a row whose columns named in `fixed` have other values does not
    change. Raises the organization's epoch if something changes, and returns the new epoch; otherwise None.
    """
    stored_time = await connection.execute(select(table.c.as_of_time).where(_has(table, key)))
    if (row := stored_time.one_or_none()) is not None and is_newer(row.as_of_time, as_of_time):
        return None

    # A billing system repeats what it knows. A put that says nothing new must not take the organization's lock, which
    # stops ingest: it only updates as_of_time. The conditions are part of the statement because another transaction
    # may have changed the row since it was read.
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
