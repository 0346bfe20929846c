"""The course of a gauge's value in a billing period, as points at equal intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, localcontext

from engine.explanation.explaining import Explaining
from engine.explanation.questions import FoundGauge, Question
from evaluator.aggregation import Aggregation
from evaluator.amounts import ZERO, exact_arithmetic
from store.postgres.database import driver
from store.usage import series
from store.usage.recounts import Recount
from store.usage.series import Course
from store.views.held_of_gauges import read_held

_WIDTHS = tuple(
    timedelta(seconds=seconds)
    for seconds in (1, 5, 15, 30, 60, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400)
)
_DECIMALS = Decimal(1).scaleb(-18)
_PRECISION = 200  # digits; values have at most 96


@dataclass(frozen=True)
class Series:
    """The course of one gauge. value: now; None if nothing was counted. examined: events that were read."""

    found: FoundGauge
    value: Decimal | None
    points: Sequence[tuple[datetime, Decimal]]
    examined: int
    is_exact: bool


async def series_of(explaining: Explaining, question: Question, most_points: int) -> Series | None:
    """The course of the gauge that a question names; None if the alert has no such gauge.

    Raises AlertUnknown, CustomerUnknown, NotOfUsage, and NotCovered.
    """
    found = await explaining.watched_gauge(question)
    if found is None:
        return None
    watch = found.watch
    period, now = watch.gauge.period, explaining.now
    end = max(min(now, period.end), period.start)
    width = width_of(end - period.start, most_points)
    intervals = max(-(-(end - period.start) // width), 1)
    counted = Recount(watch.gauge, watch.aggregation, watch.unique_property, (), watch.raw_events)
    raw = await driver(explaining.connection)
    course = await series.course(raw, explaining.organization_id, counted, width, intervals)
    values = _values(course, watch.aggregation, await _value_of_events(explaining, found, course))
    times = [min(period.start + width * (number + 1), end) for number in range(intervals)]
    points = [(period.start, ZERO), *zip(times, values, strict=True)]
    value = found.value
    if value is None and any(amount is not None for amount in course.amounts):
        value = values[-1]
    return Series(found, value, points, course.examined, course.is_exact)


def width_of(length: timedelta, most_points: int) -> timedelta:
    """The width of intervals of which at most so many cover a length: a round one, or whole days."""
    least = length / max(most_points - 1, 1)
    for width in _WIDTHS:
        if width >= least:
            return width
    day = _WIDTHS[-1]
    return day * -(-least // day)


async def _value_of_events(explaining: Explaining, found: FoundGauge, course: Course) -> Decimal | None:
    """What the events of the gauge's period are together, to which a sample is scaled; None if that is not known."""
    gauge, value = found.watch.gauge, found.value
    if course.is_exact or value is None or not gauge.measure.counts_held:
        return value
    held = (await read_held(explaining.connection, explaining.organization_id, [gauge])).get(gauge)
    if held is None:
        return None
    with exact_arithmetic():
        return value - held.amount


def _values(course: Course, aggregation: Aggregation, value: Decimal | None) -> list[Decimal]:
    """The value at the end of each interval. value: see `_value_of_events`."""
    values, current, is_first = list[Decimal](), ZERO, True
    is_sum = aggregation.additive or aggregation is Aggregation.UNIQUE_COUNT
    with exact_arithmetic():
        for amount in course.amounts:
            if amount is not None:
                if is_sum:
                    current += amount
                else:
                    current = max(current, amount) if aggregation is Aggregation.MAX and not is_first else amount
                is_first = False
            values.append(current)
    if course.is_exact:
        return values
    if is_sum and current:
        with localcontext(prec=_PRECISION):
            if value is not None:
                values = [(one * value / current).quantize(_DECIMALS) for one in values]
            elif aggregation.additive:
                values = [
                    (one * course.share.denominator / course.share.numerator).quantize(_DECIMALS) for one in values
                ]
    return values if value is None else [*values[:-1], value]
