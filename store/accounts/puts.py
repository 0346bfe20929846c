"""Puts: a fact replaces the stored one, unless the stored one has a later as_of_time."""

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

    stored: what is stored after the put. superseded: a newer fact is stored, and the put changed nothing. changed:
    the put changed more than as_of_time. epoch: the organization's new epoch if the put raised it; the transaction
    then holds the organization's lock exclusively. previous: what was stored before, of facts whose old values are
    evaluated too. noted: false, if it is known that its customer needs no evaluation.
    """

    stored: Stored
    superseded: bool = False
    changed: bool = False
    epoch: int | None = None
    previous: Stored | None = None
    noted: bool = True


@dataclass(frozen=True)
class UnlockedPut(Generic[Stored]):
    """The result of a put that needed no lock. noted: the customer still has to be evaluated on an earlier put."""

    stored: Stored
    superseded: bool
    noted: bool


def is_newer(stored_time: datetime | None, as_of_time: datetime) -> bool:
    """Whether the stored fact is newer than a fact of `as_of_time`. After implicit registration it is never newer."""
    return stored_time is not None and stored_time > as_of_time


async def put_fact(
    connection: AsyncConnection,
    table: Table,
    key: dict[str, Any],
    facts: dict[str, Any],
    as_of_time: datetime,
    now: datetime,
    fixed: tuple[str, ...] = (),
    create_epoch: str | None = None,
) -> int | None:
    """Creates or replaces the row with that key, unless it holds a newer fact.

    facts: the columns that the caller states. fixed: names of columns that cannot change; a row with other values in
    them stays as it is. create_epoch: the column that keeps the epoch at which the row is created, if there is one.
    Raises the organization's epoch if something changes, and returns the new epoch; otherwise returns None.
    """
    stored_time = await connection.execute(select(table.c.as_of_time).where(_has(table, key)))
    if (row := stored_time.one_or_none()) is not None and is_newer(row.as_of_time, as_of_time):
        return None
    if await _confirm(connection, table, key, facts, as_of_time):
        return None
    epoch = await organizations.begin_change(connection, key["organization_id"])
    changed = {**facts, "as_of_time": as_of_time, "update_time": now, "changed_epoch": epoch}
    created = {"create_time": now} | ({} if create_epoch is None else {create_epoch: epoch})
    await connection.execute(
        insert(table)
        .values(**key, **changed, **created)
        .on_conflict_do_update(
            index_elements=list(key),
            set_=changed,
            where=and_(_not_newer(table, as_of_time), _states(table, {name: facts[name] for name in fixed})),
        )
    )
    return epoch


async def _confirm(
    connection: AsyncConnection, table: Table, key: dict[str, Any], facts: dict[str, Any], as_of_time: datetime
) -> bool:
    """Updates as_of_time if the row has these facts already; returns whether it did.

    Billing systems repeat their puts. A put that changes nothing must not take the organization's lock, which stops
    ingest. The conditions are part of the statement because another transaction can have changed the row since
    `put_fact` read it.
    """
    confirmed = await connection.execute(
        update(table)
        .where(_has(table, key), _states(table, facts), _not_newer(table, as_of_time))
        .values(as_of_time=as_of_time)
        .returning(table.c.as_of_time)
    )
    return confirmed.one_or_none() is not None


def _not_newer(table: Table, as_of_time: datetime) -> ColumnElement[bool]:
    return or_(table.c.as_of_time.is_(None), table.c.as_of_time <= as_of_time)


def _has(table: Table, key: dict[str, Any]) -> ColumnElement[bool]:
    return and_(*(table.c[name] == value for name, value in key.items()))


def _states(table: Table, facts: dict[str, Any]) -> ColumnElement[bool]:
    return and_(true(), *(table.c[name].is_not_distinct_from(value) for name, value in facts.items()))
