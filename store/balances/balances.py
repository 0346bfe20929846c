"""Balances of customers and their segments: the facts, what is stored, and how it is read.

`store.balances.changes` changes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import ColumnElement, RowMapping, and_, func, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.balances import BalanceKind, Seat, Unit
from store.postgres.counting import bounded_count
from store.tables.balances import balance, balance_segment


@dataclass(frozen=True)
class SegmentFact:
    """What the caller states about a segment. It is active from start_time to just before end_time.

    end_time: None for a segment without an end.
    """

    amount: Decimal
    start_time: datetime
    end_time: datetime | None


@dataclass(frozen=True)
class BalanceFact:
    """What the caller states about a balance.

    currency, metric_id: the unit of its amounts; exactly one is set. draw_down: whether usage draws on it; if
    draw_down_metric_ids is not empty, only usage of those metrics does. segments: the first has the number 1.
    cost_basis: what the customer paid for each unit.
    """

    customer_id: str
    balance_id: str
    kind: BalanceKind
    currency: str | None
    metric_id: str | None
    priority: int
    contract_id: str | None
    contract_custom_fields: Mapping[str, str]
    custom_fields: Mapping[str, str]
    credit_grant_type: str | None
    seat: Seat | None
    license_type: str | None
    draw_down: bool
    allow_overage: bool
    draw_down_metric_ids: tuple[str, ...]
    segments: tuple[SegmentFact, ...]
    as_of_time: datetime
    display_name: str = ""
    cost_basis: Decimal | None = None


@dataclass(frozen=True)
class StoredSegment:
    """A segment as it is stored.

    adjusted: the sum of its adjustments. drawn: what usage drew. removed: the last put left the segment out, so its
    amounts do not count. topped_up: the sum of the adjustments above 0. held: by open reservations; it stays when the
    segment ends, is left out or granted less, or its balance is voided.
    """

    segment_number: int
    fact: SegmentFact
    adjusted: Decimal = ZERO
    drawn: Decimal = ZERO
    removed: bool = False
    topped_up: Decimal = ZERO
    held: Decimal = ZERO

    @property
    def granted(self) -> Decimal:
        """The amount that was put, and all adjustments."""
        with exact_arithmetic():
            return self.fact.amount + self.adjusted

    @property
    def remaining(self) -> Decimal:
        """What was granted, less what usage drew and what is held."""
        with exact_arithmetic():
            return self.granted - self.drawn - self.held

    @property
    def undrawn(self) -> Decimal:
        """What was granted, less what usage drew: the sum of its ledger, in which holds are no entries."""
        with exact_arithmetic():
            return self.granted - self.drawn

    @property
    def provided(self) -> Decimal:
        """The amount that was put, and what adjustments added."""
        with exact_arithmetic():
            return self.fact.amount + self.topped_up

    @property
    def used(self) -> Decimal:
        """What usage drew and adjustments took away."""
        with exact_arithmetic():
            return self.drawn + self.topped_up - self.adjusted

    def is_active(self, now: datetime) -> bool:
        """Whether what remains counts at `now`, if the balance is not voided."""
        ended = self.fact.end_time is not None and self.fact.end_time <= now
        return not self.removed and self.fact.start_time <= now and not ended


@dataclass(frozen=True)
class StoredBalance:
    """A balance as it is stored. segments: by number, including the removed ones."""

    organization_id: int
    fact: BalanceFact
    segments: tuple[StoredSegment, ...]
    void_time: datetime | None
    create_time: datetime
    update_time: datetime

    def active(self, now: datetime) -> tuple[StoredSegment, ...]:
        """The segments that count at `now`."""
        if self.void_time is not None:
            return ()
        return tuple(segment for segment in self.segments if segment.is_active(now))


async def read_one_snapshot(connection: AsyncConnection) -> None:
    """Makes all statements of a transaction read the same snapshot. Must come first; the transaction can only read.

    Two statements read a balance and its segments: without this, a change between them would be half visible. A
    transaction that holds the customer's wallet does not need it, since the balance cannot change.
    """
    await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


async def get(
    connection: AsyncConnection, organization_id: int, customer_id: str, balance_id: str
) -> StoredBalance | None:
    """One balance of a customer, or None."""
    rows = await connection.execute(
        select(balance).where(
            balance.c.organization_id == organization_id,
            balance.c.customer_id == customer_id,
            balance.c.balance_id == balance_id,
        )
    )
    found = await _with_segments(connection, organization_id, rows.mappings().all())
    return found[0] if found else None


async def of_unit(
    connection: AsyncConnection, organization_id: int, customer_id: str, unit: Unit, balance_ids: Sequence[str]
) -> list[StoredBalance]:
    """Those of the balances that the customer has in the unit, voided or not.

    balance_ids: empty for all that are not voided, of no seat, and not of some metrics only.
    """
    statement = select(balance).where(
        balance.c.organization_id == organization_id, balance.c.customer_id == customer_id, held_in(unit)
    )
    if balance_ids:
        statement = statement.where(balance.c.balance_id.in_(balance_ids))
    else:
        statement = statement.where(
            balance.c.void_time.is_(None),
            balance.c.seat_group_key.is_(None),
            func.cardinality(balance.c.draw_down_metric_ids) == 0,
        )
    rows = await connection.execute(statement)
    return await _with_segments(connection, organization_id, rows.mappings().all())


def held_in(unit: Unit) -> ColumnElement[bool]:
    """That a balance is in the unit."""
    return and_(
        balance.c.currency.is_not_distinct_from(unit.currency),
        balance.c.metric_id.is_not_distinct_from(unit.metric_id),
    )


@dataclass(frozen=True)
class BalanceFilter:
    """Which balances to list. customer_id, kinds: None or empty for all."""

    customer_id: str | None = None
    kinds: tuple[BalanceKind, ...] = ()
    include_voided: bool = False


async def list_page(
    connection: AsyncConnection,
    organization_id: int,
    wanted: BalanceFilter,
    *,
    after: tuple[str, str] | None,
    limit: int,
) -> list[StoredBalance]:
    """Up to `limit` balances in the order of customer id and balance id.

    after: the key of the last balance of the page before.
    """
    statement = select(balance).where(*_selected(organization_id, wanted))
    if after is not None:
        statement = statement.where(tuple_(balance.c.customer_id, balance.c.balance_id) > after)
    rows = await connection.execute(statement.order_by(balance.c.customer_id, balance.c.balance_id).limit(limit))
    return await _with_segments(connection, organization_id, rows.mappings().all())


async def count(connection: AsyncConnection, organization_id: int, wanted: BalanceFilter) -> int:
    """How many balances `list_page` returns on all pages, see `bounded_count`."""
    return await bounded_count(connection, balance, *_selected(organization_id, wanted))


def _selected(organization_id: int, wanted: BalanceFilter) -> list[ColumnElement[bool]]:
    conditions = [balance.c.organization_id == organization_id]
    if wanted.customer_id is not None:
        conditions.append(balance.c.customer_id == wanted.customer_id)
    if wanted.kinds:
        conditions.append(balance.c.kind.in_([kind.value for kind in wanted.kinds]))
    if not wanted.include_voided:
        conditions.append(balance.c.void_time.is_(None))
    return conditions


async def _with_segments(
    connection: AsyncConnection, organization_id: int, rows: Sequence[RowMapping]
) -> list[StoredBalance]:
    keys = [(row["customer_id"], row["balance_id"]) for row in rows]
    if not keys:
        return []
    found = await connection.execute(
        select(balance_segment)
        .where(
            balance_segment.c.organization_id == organization_id,
            tuple_(balance_segment.c.customer_id, balance_segment.c.balance_id).in_(keys),
        )
        .order_by(balance_segment.c.segment_number)
    )
    segments: dict[tuple[str, str], list[StoredSegment]] = {key: [] for key in keys}
    for row in found.mappings():
        segments[row["customer_id"], row["balance_id"]].append(_segment(row))
    return [_balance(row, tuple(segments[key])) for row, key in zip(rows, keys, strict=True)]


def _segment(row: RowMapping) -> StoredSegment:
    return StoredSegment(
        segment_number=row["segment_number"],
        fact=SegmentFact(row["amount"], row["start_time"], row["end_time"]),
        adjusted=row["adjusted"],
        drawn=row["drawn"],
        removed=row["removed"],
        topped_up=row["topped_up"],
        held=row["held"],
    )


def _balance(row: RowMapping, segments: tuple[StoredSegment, ...]) -> StoredBalance:
    has_seat = row["seat_group_key"] is not None
    return StoredBalance(
        organization_id=row["organization_id"],
        fact=BalanceFact(
            customer_id=row["customer_id"],
            balance_id=row["balance_id"],
            kind=BalanceKind(row["kind"]),
            currency=row["currency"],
            metric_id=row["metric_id"],
            priority=row["priority"],
            contract_id=row["contract_id"],
            contract_custom_fields=row["contract_custom_fields"],
            custom_fields=row["custom_fields"],
            credit_grant_type=row["credit_grant_type"],
            seat=Seat(row["seat_group_key"], row["seat_group_value"]) if has_seat else None,
            license_type=row["license_type"],
            draw_down=row["draw_down"],
            allow_overage=row["allow_overage"],
            draw_down_metric_ids=tuple(row["draw_down_metric_ids"]),
            segments=tuple(segment.fact for segment in segments if not segment.removed),
            as_of_time=row["as_of_time"],
            display_name=row["display_name"],
            cost_basis=row["cost_basis"],
        ),
        segments=segments,
        void_time=row["void_time"],
        create_time=row["create_time"],
        update_time=row["update_time"],
    )
