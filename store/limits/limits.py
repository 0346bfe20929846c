"""Limits: how much a customer, or each customer of a plan, may use in a billing period."""

import json
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, literal, select, update
from sqlalchemy import delete as sql_delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.ids import digest_of
from store.accounts.puts import Put, is_newer, put_fact
from store.erasures import jobs as erasures
from store.identity import organizations
from store.postgres.counting import bounded_count
from store.tables.plans import usage_limit

# The id of a deleted limit begins so; ids of callers have no control characters. Its natural key follows.
_DELETED = "\x01"
_FIXED = ("customer_id", "plan_id", "currency", "metric_id", "groups")


@dataclass(frozen=True)
class LimitSubject:
    """What is limited. Exactly one of customer_id and plan_id is set, and one of currency and metric_id.

    groups: (property, value), sorted by property. Value None stands for each value that has no limit of its own.
    """

    customer_id: str | None
    plan_id: str | None
    currency: str | None
    metric_id: str | None
    groups: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True)
class LimitFact:
    """What the caller states about a limit. amount: for each billing period; None for no limit."""

    limit_id: str
    subject: LimitSubject
    amount: Decimal | None
    as_of_time: datetime
    display_name: str = ""


@dataclass(frozen=True)
class StoredLimit:
    """A limit as it is stored."""

    organization_id: int
    limit_id: str
    subject: LimitSubject
    amount: Decimal | None
    as_of_time: datetime
    create_time: datetime
    update_time: datetime
    display_name: str = ""


class LimitFixed(Exception):
    """A put changes the subject of a limit, which cannot change."""

    def __init__(self, limit_id: str, field: str) -> None:
        super().__init__(limit_id, field)
        self.limit_id = limit_id
        self.field = field  # holder, access or groups


class LimitExists(Exception):
    """Another limit has the same subject."""

    def __init__(self, limit_id: str) -> None:
        super().__init__(limit_id)
        self.limit_id = limit_id


async def put(connection: AsyncConnection, organization_id: int, fact: LimitFact, now: datetime) -> Put[StoredLimit]:
    """Stores the fact, unless a newer one is stored.

    Raises LimitFixed if the limit exists with another subject, and LimitExists if another limit has this subject.
    """
    key = {"organization_id": organization_id, "limit_id": fact.limit_id}
    fixed = _columns(fact.subject)
    natural_key = _natural_key(fixed)
    facts = {**fixed, "natural_key": natural_key, "amount": fact.amount, "display_name": fact.display_name}
    deleted = _table_key(organization_id, _deleted_id(natural_key))
    await connection.execute(sql_delete(usage_limit).where(*deleted))
    try:
        async with connection.begin_nested():
            epoch = await put_fact(connection, usage_limit, key, facts, fact.as_of_time, now, fixed=_FIXED)
    except IntegrityError as error:
        other = await connection.scalar(
            select(usage_limit.c.limit_id).where(
                usage_limit.c.organization_id == organization_id, usage_limit.c.natural_key == natural_key
            )
        )
        if other is None:
            raise
        if other == _deleted_id(natural_key):
            # A deletion was committed after the statement above, and before this transaction had the lock.
            return await put(connection, organization_id, fact, now)
        raise LimitExists(other) from error
    if epoch is not None and fact.subject.customer_id is not None:
        await erasures.refuse_during(connection, organization_id, fact.subject.customer_id)
    stored = await get(connection, organization_id, fact.limit_id)
    assert stored is not None, "a limit exists after it was put"
    superseded = is_newer(stored.as_of_time, fact.as_of_time)
    if not superseded and (field := _fixed_field(stored.subject, fact.subject)) is not None:
        raise LimitFixed(fact.limit_id, field)
    return Put(stored, superseded=superseded, changed=epoch is not None, epoch=epoch)


async def get(connection: AsyncConnection, organization_id: int, limit_id: str) -> StoredLimit | None:
    """One limit, or None."""
    rows = await connection.execute(select(usage_limit).where(*_table_key(organization_id, limit_id)))
    row = rows.mappings().one_or_none()
    return None if row is None else _limit(row)


@dataclass(frozen=True)
class DeletedLimit:
    """What a deletion removed. epoch: the organization's new epoch."""

    subject: LimitSubject
    epoch: int


async def delete(
    connection: AsyncConnection, organization_id: int, limit_id: str, now: datetime
) -> DeletedLimit | None:
    """Removes a limit; returns None if there is none. Locks the organization until the transaction ends.

    Its row stays under an id that no caller can choose, because routers read what changed.
    """
    if await get(connection, organization_id, limit_id) is None:
        return None
    epoch = await organizations.begin_change(connection, organization_id)
    rows = await connection.execute(
        update(usage_limit)
        .where(*_table_key(organization_id, limit_id))
        .values(
            limit_id=literal(_DELETED).concat(usage_limit.c.natural_key),
            amount=None,
            deleted=True,
            update_time=now,
            changed_epoch=epoch,
        )
        .returning(usage_limit)
    )
    row = rows.mappings().one_or_none()
    return None if row is None else DeletedLimit(_limit(row).subject, epoch)


def _deleted_id(natural_key: str) -> str:
    return _DELETED + natural_key


def _table_key(organization_id: int, limit_id: str) -> tuple[ColumnElement[bool], ...]:
    return usage_limit.c.organization_id == organization_id, usage_limit.c.limit_id == limit_id


async def list_page(
    connection: AsyncConnection,
    organization_id: int,
    *,
    customer_id: str | None,
    plan_id: str | None,
    after: str | None,
    limit: int,
) -> list[StoredLimit]:
    """Up to `limit` limits after the id `after`, in the order of ids. customer_id, plan_id: None for all."""
    statement = select(usage_limit).where(*_selected(organization_id, customer_id, plan_id))
    if after is not None:
        statement = statement.where(usage_limit.c.limit_id > after)
    rows = await connection.execute(statement.order_by(usage_limit.c.limit_id).limit(limit))
    return [_limit(row) for row in rows.mappings()]


async def count(
    connection: AsyncConnection, organization_id: int, *, customer_id: str | None, plan_id: str | None
) -> int:
    """How many limits `list_page` returns on all pages, see `bounded_count`."""
    return await bounded_count(connection, usage_limit, *_selected(organization_id, customer_id, plan_id))


def _selected(organization_id: int, customer_id: str | None, plan_id: str | None) -> list[ColumnElement[bool]]:
    conditions = [usage_limit.c.organization_id == organization_id, usage_limit.c.deleted.is_(False)]
    if customer_id is not None:
        conditions.append(usage_limit.c.customer_id == customer_id)
    if plan_id is not None:
        conditions.append(usage_limit.c.plan_id == plan_id)
    return conditions


def _columns(subject: LimitSubject) -> dict[str, Any]:
    return {
        "customer_id": subject.customer_id,
        "plan_id": subject.plan_id,
        "currency": subject.currency,
        "metric_id": subject.metric_id,
        "groups": [list(group) for group in subject.groups],
    }


def _natural_key(fixed: dict[str, Any]) -> str:
    """A digest of the subject: the ids, keys and values together can be too long for an index entry."""
    return digest_of(json.dumps([fixed[name] for name in _FIXED])).hex()


def _fixed_field(stored: LimitSubject, subject: LimitSubject) -> str | None:
    """The first field in which the subjects differ; None if they are equal."""
    if (stored.customer_id, stored.plan_id) != (subject.customer_id, subject.plan_id):
        return "holder"
    if (stored.currency, stored.metric_id) != (subject.currency, subject.metric_id):
        return "access"
    return "groups" if stored.groups != subject.groups else None


def _limit(row: RowMapping) -> StoredLimit:
    return StoredLimit(
        organization_id=row["organization_id"],
        limit_id=row["limit_id"],
        subject=LimitSubject(
            customer_id=row["customer_id"],
            plan_id=row["plan_id"],
            currency=row["currency"],
            metric_id=row["metric_id"],
            groups=tuple((key, value) for key, value in row["groups"]),
        ),
        amount=row["amount"],
        as_of_time=row["as_of_time"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        display_name=row["display_name"],
    )
