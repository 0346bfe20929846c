"""Limits: how much a customer, or each customer of a plan, may use in a window of time.

`store.limits.changes` changes them.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.balances import Unit
from evaluator.enforced_limits import Enforcement
from evaluator.limit_windows import BILLING_PERIOD, LimitWindow
from store.accounts.put_statements import FactRow
from store.limits.windows import window_of
from store.postgres.counting import bounded_count
from store.tables.plans import usage_limit


@dataclass(frozen=True)
class LimitSubject:
    """What is limited. Exactly one of customer_id and plan_id is set, and one of currency and metric_id.

    groups: (property, value), sorted by property. Value None stands for each value that has no limit of its own.
    window: the span of time in which the limit counts.
    """

    customer_id: str | None
    plan_id: str | None
    currency: str | None
    metric_id: str | None
    groups: tuple[tuple[str, str | None], ...]
    window: LimitWindow = BILLING_PERIOD

    @property
    def unit(self) -> Unit:
        """The unit of the amount."""
        return Unit(self.currency, self.metric_id)


@dataclass(frozen=True)
class LimitFact:
    """What the caller states about a limit. amount: for each span of its window; None for no limit."""

    limit_id: str
    subject: LimitSubject
    amount: Decimal | None
    as_of_time: datetime
    display_name: str = ""
    enforcement: Enforcement = Enforcement.NONE


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
    enforcement: Enforcement = Enforcement.NONE


async def get(connection: AsyncConnection, organization_id: int, limit_id: str) -> StoredLimit | None:
    """One limit, or None."""
    rows = await connection.execute(select(usage_limit).where(*_table_key(organization_id, limit_id)))
    row = rows.mappings().one_or_none()
    return None if row is None else limit_of(row)


def _table_key(organization_id: int, limit_id: str) -> tuple[ColumnElement[bool], ...]:
    return usage_limit.c.organization_id == organization_id, usage_limit.c.limit_id == limit_id


@dataclass(frozen=True)
class LimitFilter:
    """Which limits to list: those that match each field that is set."""

    customer_id: str | None = None
    plan_id: str | None = None


async def list_page(
    connection: AsyncConnection, organization_id: int, wanted: LimitFilter, *, after: str | None, limit: int
) -> list[StoredLimit]:
    """Up to `limit` limits after the id `after`, in the order of ids."""
    statement = select(usage_limit).where(*_selected(organization_id, wanted))
    if after is not None:
        statement = statement.where(usage_limit.c.limit_id > after)
    rows = await connection.execute(statement.order_by(usage_limit.c.limit_id).limit(limit))
    return [limit_of(row) for row in rows.mappings()]


async def count(connection: AsyncConnection, organization_id: int, wanted: LimitFilter) -> int:
    """How many limits `list_page` returns on all pages, see `bounded_count`."""
    return await bounded_count(connection, usage_limit, *_selected(organization_id, wanted))


def _selected(organization_id: int, wanted: LimitFilter) -> list[ColumnElement[bool]]:
    conditions = [usage_limit.c.organization_id == organization_id, usage_limit.c.deleted.is_(False)]
    if wanted.customer_id is not None:
        conditions.append(usage_limit.c.customer_id == wanted.customer_id)
    if wanted.plan_id is not None:
        conditions.append(usage_limit.c.plan_id == wanted.plan_id)
    return conditions


def subject_of(row: FactRow) -> LimitSubject:
    """The subject of a limit in a row of usage_limit."""
    return LimitSubject(
        customer_id=row["customer_id"],
        plan_id=row["plan_id"],
        currency=row["currency"],
        metric_id=row["metric_id"],
        groups=tuple((key, value) for key, value in row["groups"]),
        window=window_of(row["window_kind"], row["window_minutes"]),
    )


def limit_of(row: FactRow) -> StoredLimit:
    """A limit, of a row of usage_limit."""
    return StoredLimit(
        organization_id=row["organization_id"],
        limit_id=row["limit_id"],
        subject=subject_of(row),
        amount=row["amount"],
        as_of_time=row["as_of_time"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        display_name=row["display_name"],
        enforcement=Enforcement(row["enforcement"]),
    )
