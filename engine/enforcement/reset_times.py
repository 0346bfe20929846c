"""Reset times: when enough will have left the rolling windows of the limits that refused."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import accumulate

from engine.enforcement.deciding import Rolling
from evaluator.amounts import exact_arithmetic
from evaluator.enforcement.decisions import Decision
from evaluator.enforcement.meters import MeterCell
from evaluator.limit_windows import MINUTE
from store.enforcement import rolling_minutes
from store.enforcement.rolling_minutes import Leaving
from store.postgres.database import DriverConnection


async def with_reset_times(
    connection: DriverConnection,
    organization_id: int,
    now: datetime,
    refused: Sequence[Rolling],
    cells: Mapping[str, MeterCell],
) -> dict[int, Decision]:
    """The decisions with their reset times, by the `id` of the decisions without; others are left out.

    cells: by `MeterCell.key`. What they have counted since they were read must be stored, unless they were counted
    by a transaction that cannot write.
    """
    wanted = [Leaving(one.state.meter.customer_id, one.state.meter.key, one.excess) for one in refused]
    distinct = [one for one in dict.fromkeys(wanted) if not cells[one.meter_id].is_counted_here]
    minutes = await rolling_minutes.leaving(connection, organization_id, distinct) if distinct else []
    found = dict(zip(distinct, minutes, strict=True))
    with exact_arithmetic():
        found |= {one: _leaving(cells[one.meter_id], one.amount) for one in wanted if one not in found}
    replaced = {}
    for one, leaving in zip(refused, wanted, strict=True):
        minute, length = found[leaving], one.state.limit.window.minutes
        if minute is None or length is None:
            continue
        reset = minute + (length + 1) * MINUTE
        retry_after = one.decision.retry_after
        if retry_after is None and one.decision.is_denied:
            retry_after = max(reset - now, timedelta())
        replaced[id(one.decision)] = replace(
            one.decision, limit=replace(one.state, reset_time=reset), retry_after=retry_after
        )
    return replaced


def _leaving(cell: MeterCell, amount: Decimal) -> datetime | None:
    """The minute that has to leave the window of a meter until the amount has left it; None if it holds less."""
    minutes = sorted(cell.minutes)
    left = accumulate(cell.minutes[minute] for minute in minutes)
    return next((minute for minute, sum_of_left in zip(minutes, left, strict=True) if sum_of_left >= amount), None)
