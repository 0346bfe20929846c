"""Reset times: when enough will have left the rolling windows of the limits that refused."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from engine.enforcement.deciding import Rolling
from evaluator.enforcement.decisions import Decision
from evaluator.limit_windows import MINUTE
from store.enforcement import rolling_minutes
from store.enforcement.rolling_minutes import Leaving
from store.postgres.database import DriverConnection


async def with_reset_times(
    connection: DriverConnection, organization_id: int, now: datetime, refused: Sequence[Rolling]
) -> dict[int, Decision]:
    """The decisions with their reset times, by the `id` of the decisions without; others are left out."""
    wanted = [Leaving(one.state.meter.customer_id, one.state.meter.key, one.excess) for one in refused]
    distinct = list(dict.fromkeys(wanted))
    minutes = await rolling_minutes.leaving(connection, organization_id, distinct)
    found = dict(zip(distinct, minutes, strict=True))
    replaced = {}
    for one, leaving in zip(refused, wanted, strict=True):
        minute, length = found[leaving], one.state.limit.window.minutes
        if minute is None or length is None:
            continue
        reset = minute + length * MINUTE
        retry_after = one.decision.retry_after
        if retry_after is None and one.decision.is_denied:
            retry_after = max(reset - now, timedelta())
        replaced[id(one.decision)] = replace(
            one.decision, limit=replace(one.state, reset_time=reset), retry_after=retry_after
        )
    return replaced
