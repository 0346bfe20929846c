"""Recharges as they are stored, read and listed."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import ColumnElement, RowMapping, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.balances import Unit
from evaluator.recharges import CancelReason, RechargeState
from store.postgres.counting import bounded_count
from store.tables.recharges import recharge


@dataclass(frozen=True)
class Result:
    """What a caller reports: a payment, with up to `payment_reference`; or a failure, without an amount.

    amount: None for that of the recharge. segment_number: None for the active segment that ends last.
    """

    state: RechargeState  # PAID or FAILED
    amount: Decimal | None = None
    segment_number: int | None = None
    payment_reference: str = ""
    failure_message: str = ""
    permanent: bool = False


@dataclass(frozen=True)
class StoredRecharge:
    """A recharge. result: as it was reported. paid_amount: what was added to the balance, to `segment_number`."""

    organization_id: int
    customer_id: str
    recharge_id: str
    balance_id: str
    policy_id: str
    sequence: int
    state: RechargeState
    attempt: int
    unit: Unit
    amount: Decimal
    remaining: Decimal
    create_time: datetime
    expire_time: datetime
    end_time: datetime | None = None
    cancel_reason: CancelReason | None = None
    report_time: datetime | None = None
    result: Result | None = None
    paid_amount: Decimal | None = None
    segment_number: int | None = None


async def get(
    connection: AsyncConnection, organization_id: int, customer_id: str, recharge_id: str
) -> StoredRecharge | None:
    """One recharge of a customer, or None."""
    rows = await connection.execute(
        select(recharge).where(
            recharge.c.organization_id == organization_id,
            recharge.c.customer_id == customer_id,
            recharge.c.recharge_id == recharge_id,
        )
    )
    row = rows.mappings().one_or_none()
    return None if row is None else _stored(row)


@dataclass(frozen=True)
class RechargeFilter:
    """Which recharges to list. None: all. balance_id: of the customer, which then is set."""

    customer_id: str | None = None
    balance_id: str | None = None
    state: RechargeState | None = None


async def list_page(
    connection: AsyncConnection,
    organization_id: int,
    wanted: RechargeFilter,
    *,
    after: tuple[datetime, str] | None,
    limit: int,
) -> list[StoredRecharge]:
    """Up to `limit` recharges, the newest first. after: create_time and id of the last one of the page before."""
    statement = select(recharge).where(*_selected(organization_id, wanted))
    if after is not None:
        statement = statement.where(tuple_(recharge.c.create_time, recharge.c.recharge_id) < tuple_(*after))
    order = recharge.c.create_time.desc(), recharge.c.recharge_id.desc()
    rows = await connection.execute(statement.order_by(*order).limit(limit))
    return [_stored(row) for row in rows.mappings()]


async def count(connection: AsyncConnection, organization_id: int, wanted: RechargeFilter) -> int:
    """How many recharges `list_page` returns on all pages, see `bounded_count`."""
    return await bounded_count(connection, recharge, *_selected(organization_id, wanted))


def _selected(organization_id: int, wanted: RechargeFilter) -> list[ColumnElement[bool]]:
    conditions = [recharge.c.organization_id == organization_id]
    if wanted.customer_id is not None:
        conditions.append(recharge.c.customer_id == wanted.customer_id)
    if wanted.balance_id is not None:
        conditions.append(recharge.c.balance_id == wanted.balance_id)
    if wanted.state is not None:
        conditions.append(recharge.c.state == wanted.state.value)
    return conditions


def _stored(row: RowMapping) -> StoredRecharge:
    reason = row["cancel_reason"]
    return StoredRecharge(
        organization_id=row["organization_id"],
        customer_id=row["customer_id"],
        recharge_id=row["recharge_id"],
        balance_id=row["balance_id"],
        policy_id=row["policy_id"],
        sequence=row["sequence"],
        state=RechargeState(row["state"]),
        attempt=row["attempt"],
        unit=Unit.from_key(row["unit"]),
        amount=row["amount"],
        remaining=row["remaining"],
        create_time=row["create_time"],
        expire_time=row["expire_time"],
        end_time=row["end_time"],
        cancel_reason=None if reason is None else CancelReason(reason),
        report_time=row["report_time"],
        result=_result(row),
        paid_amount=row["paid_amount"],
        segment_number=row["segment_number"],
    )


def _result(row: RowMapping) -> Result | None:
    if row["report_time"] is None:
        return None
    return Result(
        state=RechargeState(row["state"]),
        amount=row["requested_amount"],
        segment_number=row["requested_segment_number"],
        payment_reference=row["payment_reference"] or "",
        failure_message=row["failure_message"] or "",
        permanent=row["permanent"],
    )
