"""Balances of customers and their segments: what they are, and how they are read.

They are changed in `store.balances.changes`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import RowMapping, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.balances import BalanceKind, Seat
from store.tables.balances import balance, balance_segment


@dataclass(frozen=True)
class SegmentFact:
    """What a caller says of a segment. It is active from start_time to just before end_time, or for good."""

    amount: Decimal
    start_time: datetime
    end_time: datetime | None


@dataclass(frozen=True)
class BalanceFact:
    """What a caller says of a balance.

    currency, metric_id: what it is held in; exactly one is set. draw_down: whether usage uses it up, only that
    of draw_down_metric_ids unless they are empty. segments: the first has the number 1.
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


@dataclass(frozen=True)
class Segment:
    """A segment as it is kept.

    adjusted: the sum of its adjustments; topped_up: of those above 0. removed: the last put left it out, and it
    counts towards nothing.
    """

    segment_number: int
    fact: SegmentFact
    adjusted: Decimal = ZERO
    drawn: Decimal = ZERO
    removed: bool = False
    topped_up: Decimal = ZERO

    @property
    def granted(self) -> Decimal:
        """What was put, and all adjustments."""
        with exact_arithmetic():
            return self.fact.amount + self.adjusted

    @property
    def remaining(self) -> Decimal:
        """What was granted, less what usage took."""
        with exact_arithmetic():
            return self.granted - self.drawn

    @property
    def provided(self) -> Decimal:
        """What was put, and what adjustments added."""
        with exact_arithmetic():
            return self.fact.amount + self.topped_up

    @property
    def used(self) -> Decimal:
        """What usage and adjustments took."""
        with exact_arithmetic():
            return self.drawn + self.topped_up - self.adjusted

    def is_active(self, now: datetime) -> bool:
        """Whether what remains counts at `now`, as long as the balance is not voided."""
        ended = self.fact.end_time is not None and self.fact.end_time <= now
        return not self.removed and self.fact.start_time <= now and not ended


@dataclass(frozen=True)
class Balance:
    """A balance of an organization. segments: all there ever were, by number, also those that were removed."""

    organization_id: int
    fact: BalanceFact
    segments: tuple[Segment, ...]
    void_time: datetime | None
    create_time: datetime
    update_time: datetime

    def active(self, now: datetime) -> tuple[Segment, ...]:
        """The segments that count at `now`."""
        if self.void_time is not None:
            return ()
        return tuple(segment for segment in self.segments if segment.is_active(now))


async def see_one_moment(connection: AsyncConnection) -> None:
    """Makes everything that this transaction reads be of one moment; must come first, and the transaction only read.

    A balance and its segments are read by two statements. Whoever holds the wallet has no need of it.
    """
    await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


async def get(connection: AsyncConnection, organization_id: int, customer_id: str, balance_id: str) -> Balance | None:
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


async def list_page(
    connection: AsyncConnection,
    organization_id: int,
    *,
    customer_id: str | None,
    kinds: tuple[BalanceKind, ...],
    include_voided: bool,
    after: tuple[str, str] | None,
    limit: int,
) -> list[Balance]:
    """Up to `limit` balances after (customer id, id) `after`, in that order, narrowed where asked."""
    statement = select(balance).where(balance.c.organization_id == organization_id)
    if customer_id is not None:
        statement = statement.where(balance.c.customer_id == customer_id)
    if kinds:
        statement = statement.where(balance.c.kind.in_([kind.value for kind in kinds]))
    if not include_voided:
        statement = statement.where(balance.c.void_time.is_(None))
    if after is not None:
        statement = statement.where(tuple_(balance.c.customer_id, balance.c.balance_id) > after)
    rows = await connection.execute(statement.order_by(balance.c.customer_id, balance.c.balance_id).limit(limit))
    return await _with_segments(connection, organization_id, rows.mappings().all())


async def _with_segments(
    connection: AsyncConnection, organization_id: int, rows: Sequence[RowMapping]
) -> list[Balance]:
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
    segments: dict[tuple[str, str], list[Segment]] = {key: [] for key in keys}
    for row in found.mappings():
        segments[row["customer_id"], row["balance_id"]].append(_segment(row))
    return [_balance(row, tuple(segments[key])) for row, key in zip(rows, keys, strict=True)]


def _segment(row: RowMapping) -> Segment:
    return Segment(
        segment_number=row["segment_number"],
        fact=SegmentFact(row["amount"], row["start_time"], row["end_time"]),
        adjusted=row["adjusted"],
        drawn=row["drawn"],
        removed=row["removed"],
        topped_up=row["topped_up"],
    )


def _balance(row: RowMapping, segments: tuple[Segment, ...]) -> Balance:
    has_seat = row["seat_group_key"] is not None
    return Balance(
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
        ),
        segments=segments,
        void_time=row["void_time"],
        create_time=row["create_time"],
        update_time=row["update_time"],
    )
