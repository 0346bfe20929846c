"""What alerts on balances read: on which gauges, which numbers, and when time alone will change them."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from evaluator.alerts import AlertRule
from evaluator.amounts import MAX_DECIMALS, ZERO
from evaluator.balances import BalanceReading, BalanceSelection, Holding
from evaluator.gauges import BALANCE_KEY, EVER, SEGMENT_KEY, Gauge, Group, Measure
from evaluator.thresholds import Ladder

_MICROSECONDS_A_DAY = 86_400_000_000
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a gauge of facts reads. value: None where there is nothing to measure. scale: see `Measure.shown`.

    ended: there is nothing any more, since its days are over.
    """

    value: Decimal | None
    scale: Decimal | None = None
    ended: bool = False

    def after(self, last: Decimal | None) -> "Reading":
        """What it reads where `last` was read before it; None: nothing was.

        Days that end on time come down to 0 by themselves. Of those whose end was moved into the past it is told too.
        """
        return Reading(ZERO) if self.ended and last is not None and last > ZERO else self


NO_DATA = Reading(None)
ENDED = Reading(None, ended=True)


def readings(
    rule: AlertRule,
    customer_id: str,
    holdings: Iterable[Holding],
    now: datetime,
    touched: Iterable[Holding] | None = None,
) -> dict[Gauge, Reading]:
    """What an alert on balances reads of a customer.

    holdings: all that the customer has, of the kinds and seats that matter. touched: only the gauges that those
    can have moved, each as it was before and as it is now; None: every gauge that has something active, or that
    reads 0 without. Must run under `exact_arithmetic`.
    """
    measure, selection = rule.measure, rule.measure.balances
    assert selection is not None
    own = [holding for holding in holdings if measure_takes(measure, holding)]
    of_touched = None if touched is None else [one for one in touched if measure_takes(measure, one)]
    if selection.reading is BalanceReading.DAYS_LEFT:
        return {gauge_of(customer_id, measure, group): reading for group, reading in _days_left(own, of_touched, now)}
    counting = [(holding, groups_of(selection, holding)) for holding in own]
    if of_touched is None:
        wanted = {group for holding, groups in counting if any(holding.active(now)) for group in groups}
        if reads_as_zero(selection):
            wanted.add(())
    else:
        # What nobody has been able to use yet says nothing: a seat is not empty before its credit begins.
        begun = [one for one in of_touched if any(segment.start <= now for segment in one.segments)]
        wanted = {group for holding in begun for group in groups_of(selection, holding)}
        if of_touched and reads_as_zero(selection):
            wanted.add(())
    granted = {group: ZERO for group in wanted if rule.selects(group)}
    drawn = dict(granted)
    for holding, groups in counting:
        for group in groups:
            if group in granted:
                for segment in holding.active(now):
                    granted[group] += segment.granted
                    drawn[group] += segment.drawn
    return {
        gauge_of(customer_id, measure, group): _reading(selection.reading, granted[group], drawn[group])
        for group in granted
    }


def groups_of(selection: BalanceSelection, holding: Holding) -> set[Group]:
    """The groups of the gauges that a selected balance counts on, where it is not read segment by segment."""
    if selection.seat_key is not None:
        assert holding.seat is not None
        return {((holding.seat.key, holding.seat.value),)}
    if selection.reading is BalanceReading.USED_PERCENT:
        return {((BALANCE_KEY, holding.balance_id),)}
    if not selection.specifiers:
        return {()}
    found = set()
    for specifier in selection.specifiers:
        if specifier.takes(holding):
            divided = ((one.key, one.value_of(holding)) for one in specifier.filters if one.value is None)
            found.add(tuple(sorted((key, value) for key, value in divided if value is not None)))
    return found


def reads_as_zero(selection: BalanceSelection) -> bool:
    """Whether it has a gauge that reads 0 for a customer who never had any such balance."""
    if selection.reading is not BalanceReading.REMAINING or selection.seat_key is not None:
        return False
    return not selection.specifiers or any(
        all(one.value is not None for one in specifier.filters) for specifier in selection.specifiers
    )


def gauge_of(customer_id: str, measure: Measure, group: Group) -> Gauge:
    """The gauge of balances, which no period re-arms."""
    return Gauge(customer_id, None, measure, group, EVER)


def days_left(end: datetime, time: datetime) -> Decimal:
    """The days from `time` to `end`, rounded up at the last decimal: a line is reached on time, never before.

    Must run under `exact_arithmetic`.
    """
    microseconds = (end - time) // _MICROSECOND
    parts = Fraction(microseconds * 10**MAX_DECIMALS, _MICROSECONDS_A_DAY)
    return Decimal(math.ceil(parts)).scaleb(-MAX_DECIMALS)


def next_change(rule: AlertRule, holdings: Iterable[Holding], after: datetime) -> datetime | None:
    """When time alone will change what an alert on balances reads, or bring it to a line; None: never.

    Must run under `exact_arithmetic`.
    """
    measure, selection = rule.measure, rule.measure.balances
    assert selection is not None
    segments = [
        segment
        for holding in holdings
        if measure_takes(measure, holding)
        for segment in holding.segments
        if segment.end is None or segment.end > after
    ]
    times = [segment.start for segment in segments]
    times += [segment.end for segment in segments if segment.end is not None]
    if selection.reading is BalanceReading.DAYS_LEFT:
        for segment in segments:
            # Before it begins no days are counted; when it does, all lines that are past by then are reached.
            if segment.end is not None and segment.start <= after:
                crossing = next_crossing(rule.ladder, segment.end, after)
                times += [] if crossing is None else [crossing]
    return min((time for time in times if time > after), default=None)


def next_crossing(ladder: Ladder, end: datetime, after: datetime) -> datetime | None:
    """When the days left to `end` come to the next line after the time `after`.

    Must run under `exact_arithmetic`.
    """
    left = days_left(end, after)
    levels = [threshold.value for threshold in ladder.fixed]
    if ladder.recurring is not None:
        levels.append(ladder.rung(ladder.rungs_past(left) + 1))
    times = [_crossing(end, level) for level in levels if level >= ZERO]
    return min((time for time in times if time > after), default=None)


def _crossing(end: datetime, level: Decimal) -> datetime:
    try:
        return end - int(level * _MICROSECONDS_A_DAY) * _MICROSECOND
    except OverflowError:  # more days than the calendar has
        return datetime.min.replace(tzinfo=end.tzinfo)


def measure_takes(measure: Measure, holding: Holding) -> bool:
    """Whether a balance is among those that a measure of balances looks at."""
    assert measure.balances is not None
    return measure.unit in (None, holding.unit) and measure.balances.takes(holding)


def _reading(kind: BalanceReading, granted: Decimal, drawn: Decimal) -> Reading:
    if kind is BalanceReading.REMAINING:
        return Reading(granted - drawn)
    if granted <= ZERO:
        return NO_DATA
    return Reading(drawn if kind is BalanceReading.USED_PERCENT else granted - drawn, granted)


def _days_left(
    own: Iterable[Holding], touched: Iterable[Holding] | None, now: datetime
) -> Iterator[tuple[Group, Reading]]:
    current = {
        (holding.balance_id, segment.number): Reading(days_left(segment.end, now))
        for holding in own
        for segment in holding.segments
        # Its end itself included: that is when no days are left.
        if segment.end is not None and segment.start <= now <= segment.end
    }
    found = current
    if touched is not None:
        found = {}
        for holding in touched:
            for segment in holding.segments:
                place = holding.balance_id, segment.number
                ended = segment.end is not None and segment.end < now
                found[place] = current.get(place, ENDED if ended else NO_DATA)
    for (balance_id, number), reading in sorted(found.items(), key=lambda item: item[0]):
        yield segment_group(balance_id, number), reading


def segment_group(balance_id: str, number: int) -> Group:
    """The group of the gauge of one segment."""
    return ((BALANCE_KEY, balance_id), (SEGMENT_KEY, str(number)))


def moved_by(selection: BalanceSelection, drawn: Decimal) -> Decimal:
    """By how much the value of a gauge changes when that much more is drawn from a segment that it counts."""
    return drawn if selection.reading is BalanceReading.USED_PERCENT else -drawn
