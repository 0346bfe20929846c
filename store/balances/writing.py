"""Writes the rows of balances and their segments."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from store.balances.balances import StoredBalance, StoredSegment
from store.tables.balances import balance, balance_segment

_BALANCE_KEY = ("organization_id", "customer_id", "balance_id")
_SEGMENT_KEY = (*_BALANCE_KEY, "segment_number")


async def write_balance(connection: AsyncConnection, written: StoredBalance) -> None:
    """Stores a balance without its segments."""
    fact = written.fact
    values = {
        "display_name": fact.display_name,
        "kind": fact.kind.value,
        "currency": fact.currency,
        "metric_id": fact.metric_id,
        "priority": fact.priority,
        "cost_basis": fact.cost_basis,
        "contract_id": fact.contract_id,
        "contract_custom_fields": dict(fact.contract_custom_fields),
        "custom_fields": dict(fact.custom_fields),
        "credit_grant_type": fact.credit_grant_type,
        "seat_group_key": fact.seat.key if fact.seat else None,
        "seat_group_value": fact.seat.value if fact.seat else None,
        "license_type": fact.license_type,
        "draw_down": fact.draw_down,
        "allow_overage": fact.allow_overage,
        "draw_down_metric_ids": list(fact.draw_down_metric_ids),
        "void_time": written.void_time,
        "as_of_time": fact.as_of_time,
        "create_time": written.create_time,
        "update_time": written.update_time,
    }
    await connection.execute(
        insert(balance)
        .values(**_key(written), **values)
        .on_conflict_do_update(index_elements=_BALANCE_KEY, set_=values)
    )


async def write_segments(
    connection: AsyncConnection, written: StoredBalance, segments: Sequence[StoredSegment]
) -> None:
    """Stores some segments of a balance."""
    if not segments:
        return
    rows = [
        {
            **_key(written),
            "segment_number": segment.segment_number,
            "amount": segment.fact.amount,
            "adjusted": segment.adjusted,
            "topped_up": segment.topped_up,
            "drawn": segment.drawn,
            "start_time": segment.fact.start_time,
            "end_time": segment.fact.end_time,
            "removed": segment.removed,
        }
        for segment in segments
    ]
    statement = insert(balance_segment)
    new = {name: statement.excluded[name] for name in rows[0] if name not in _SEGMENT_KEY}
    await connection.execute(statement.on_conflict_do_update(index_elements=_SEGMENT_KEY, set_=new), rows)


def _key(written: StoredBalance) -> dict[str, Any]:
    fact = written.fact
    values = (written.organization_id, fact.customer_id, fact.balance_id)
    return dict(zip(_BALANCE_KEY, values, strict=True))
