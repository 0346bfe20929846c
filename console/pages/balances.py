"""Balances as a page shows them: what is left, how it has burned down, and when it will be gone."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from console.access.api import ApiError
from console.access.visit import Visit
from console.plots.bars import Tick, gauge_bar
from console.plots.curves import Curve
from console.words import amounts, times
from generated.tidemark.v1 import balance_pb2
from generated.tidemark.v1.account_service_pb2 import GetBalanceSeriesRequest

CURVES = 6  # balances of one page that have a curve
SHOWN_DAYS = 90  # of the curve
RATE_DAYS = 14  # the projection goes on as in so many days, or in the time of the curve if it is shorter
MOST_PROJECTED = timedelta(days=3_650)


@dataclass(frozen=True)
class ShownBalance:
    """A balance, ready to be shown. end: when it is projected to be used up; None: it is not falling.

    expires: the last end of its active segments.
    """

    balance: balance_pb2.Balance
    unit: str
    granted: str
    remaining: str
    held: str
    share: str
    bar: Markup
    curve: Curve | None
    end: datetime | None
    expires: datetime | None
    per_day: str


async def shown(
    visit: Visit, customer_id: str, balances: Iterable[balance_pb2.Balance], zone: str
) -> list[ShownBalance]:
    """The balances of a customer, the first ones with curves."""
    every = list(balances)
    series = await asyncio.gather(*(_series(visit, customer_id, one) for one in every[:CURVES]))
    padded = [*series, *[None] * (len(every) - len(series))]
    return [_shown(one, found, visit.now, zone) for one, found in zip(every, padded, strict=True)]


async def _series(visit: Visit, customer_id: str, balance: balance_pb2.Balance) -> Any:
    start = max(visit.now - timedelta(days=SHOWN_DAYS), times.at(balance.create_time))
    request = GetBalanceSeriesRequest(customer_id=customer_id, balance_id=balance.balance_id)
    request.start_time.FromDatetime(start)
    try:
        return await visit.optional(visit.calls(visit.api.accounts.GetBalanceSeries, request))
    except ApiError as error:
        if error.is_missing or error.is_too_much:
            return None
        raise


def _shown(balance: balance_pb2.Balance, series: Any, now: datetime, zone: str) -> ShownBalance:
    def unit(text: str) -> str:
        if balance.WhichOneof("access") == "quantity":
            return amounts.with_unit(text, balance.quantity.metric_id)
        return amounts.money(text, balance.spend.currency)

    granted, remaining = amounts.decimal(balance.granted), amounts.decimal(balance.remaining)
    points = (
        []
        if series is None
        else [(times.at(one.point_time), amounts.decimal(one.value) or Decimal(0)) for one in series.points]
    )
    if len(points) > 1 and not points[0][1]:
        points = points[1:]  # before the grant there was nothing
    rate = _per_day(points)
    end = _projected_end(remaining, rate, now)
    percent = amounts.percent_of(remaining, granted)
    label = f"{unit(balance.remaining)} of {unit(balance.granted)} remain"
    return ShownBalance(
        balance=balance,
        unit=balance.quantity.metric_id if balance.WhichOneof("access") == "quantity" else balance.spend.currency,
        granted=unit(balance.granted),
        remaining=unit(balance.remaining),
        held=unit(balance.held) if amounts.decimal(balance.held) else "",
        share=percent,
        bar=gauge_bar(remaining, [], label) if not granted else _bar(remaining, granted, label),
        curve=_curve(points, end, now, zone, label) if len(points) > 1 else None,
        end=end,
        expires=_expires(balance, now),
        per_day=unit(f"{rate.quantize(Decimal('0.01')):f}") if rate is not None and rate > 0 else "",
    )


def _bar(remaining: Decimal | None, granted: Decimal, label: str) -> Markup:
    low = remaining is not None and remaining * 10 <= granted
    return gauge_bar(remaining, [Tick(granted, "granted", "limit")], label, alarm=low)


def _per_day(points: Sequence[tuple[datetime, Decimal]]) -> Decimal | None:
    """How much less remains each day, over the last days; what was granted meanwhile is left out."""
    if len(points) < 2:
        return None
    last = points[-1][0]
    recent = [one for one in points if one[0] >= last - timedelta(days=RATE_DAYS)]
    if len(recent) < 2 or recent[-1][0] <= recent[0][0]:
        recent = list(points[-2:])
    pairs = pairwise(recent)
    fallen = sum((max(before - after, Decimal(0)) for (_, before), (_, after) in pairs), Decimal(0))
    # What was drawn in an hour says little about the next weeks.
    length = max(Decimal((recent[-1][0] - recent[0][0]) / timedelta(seconds=1)) / 86_400, Decimal(1))
    return fallen / length


def _projected_end(remaining: Decimal | None, rate: Decimal | None, now: datetime) -> datetime | None:
    if remaining is None or remaining <= 0 or rate is None or rate <= 0:
        return None
    days = remaining / rate
    if days > MOST_PROJECTED.days:
        return None
    return now + timedelta(seconds=int(days * 86_400))


def _curve(
    points: Sequence[tuple[datetime, Decimal]], end: datetime | None, now: datetime, zone: str, label: str
) -> Curve:
    start, last = points[0][0], points[-1][0]
    ahead = (last - start) / 2
    shown_end, projection = last, None
    if end is not None:
        shown_end = min(end, last + ahead)
        left = Decimal((end - shown_end) / (end - last)) if end > shown_end and end > last else Decimal(0)
        projection = (shown_end, points[-1][1] * left)
    return Curve(start=start, end=shown_end, points=points, projection=projection, zone=zone, label=f"{label}.")


def _expires(balance: balance_pb2.Balance, now: datetime) -> datetime | None:
    active = [one for one in balance.segments if times.at(one.start_time) <= now]
    if not active or any(not one.HasField("end_time") for one in active):
        return None
    latest = max(times.at(one.end_time) for one in active)
    return latest if latest > now else None
