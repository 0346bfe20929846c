"""The gauges of alerts on balances: which there are, their values, and when time alone will change them."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from evaluator.alerts import AlertRule
from evaluator.amounts import MAX_DECIMALS, ZERO
from evaluator.balances import BalanceReading, BalanceSelection, Holding
from evaluator.gauges import BALANCE_KEY, EVER, SEGMENT_KEY, Gauge, Group, Measure
from evaluator.thresholds import ThresholdSet

_MICROSECONDS_A_DAY = 86_400_000_000
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class FactValue:
    """The value of a gauge that measures facts. value: None where there is no data. scale: see `Measure.shown`.

    ended: there is no data any more, because the segment has ended.
    """

    value: Decimal | None
    scale: Decimal | None = None
    ended: bool = False

    def after(self, last: Decimal | None) -> "FactValue":
        """This value, where the gauge had the value `last` before (None: no value).

        Days that are left fall to 0 with time. When the end is moved into the past they must fall to 0 too, or
        thresholds near 0 would never be reached.
        """
        return FactValue(ZERO) if self.ended and last is not None and last > ZERO else self


NO_DATA = FactValue(None)
ENDED = FactValue(None, ended=True)


def balance_values(
    rule: AlertRule,
    customer_id: str,
    holdings: Iterable[Holding],
    now: datetime,
    touched: Iterable[Holding] | None = None,
) -> dict[Gauge, FactValue]:
    """The values of a customer's gauges of an alert on balances.

    holdings: all balances of the customer with the kinds and seats of the alert. touched: only the gauges that a
    change of these balances can have moved, each as it was before and as it is now; None: every gauge with an active
    segment, and the one that is 0 without any. Must run under `exact_arithmetic`.
    """
    measure, selection = rule.measure, rule.measure.balances
    assert selection is not None
    own = [holding for holding in holdings if measure_takes(measure, holding)]
    of_touched = None if touched is None else [one for one in touched if measure_takes(measure, one)]
    if selection.reading is BalanceReading.DAYS_LEFT:
        by_group = _days_left(own, of_touched, now)
    else:
        if of_touched is None:
            groups = _active_groups(selection, own, now)
        else:
            groups = _touched_groups(selection, of_touched, now)
        by_group = _sums(selection, own, {group for group in groups if rule.selects(group)}, now)
    return {gauge_of(customer_id, measure, group): value for group, value in by_group}


def _active_groups(selection: BalanceSelection, own: Iterable[Holding], now: datetime) -> set[Group]:
    """The groups with an active segment, and the one that is 0 without any."""
    groups = {group for holding in own if any(holding.active(now)) for group in groups_of(selection, holding)}
    if reads_as_zero(selection):
        groups.add(())
    return groups


def _touched_groups(selection: BalanceSelection, touched: Sequence[Holding], now: datetime) -> set[Group]:
    """The groups that a change of these balances can have moved."""
    # A balance whose first segment has not started has no data yet: a seat is not empty before its credit starts.
    started = [one for one in touched if any(segment.start <= now for segment in one.segments)]
    groups = {group for holding in started for group in groups_of(selection, holding)}
    if touched and reads_as_zero(selection):
        groups.add(())
    return groups


def _sums(
    selection: BalanceSelection, own: Iterable[Holding], groups: Iterable[Group], now: datetime
) -> Iterator[tuple[Group, FactValue]]:
    """The value of each of the groups, from the segments that are active now."""
    granted = dict.fromkeys(groups, ZERO)
    drawn = dict(granted)
    for holding in own:
        for group in groups_of(selection, holding):
            if group in granted:
                for segment in holding.active(now):
                    granted[group] += segment.granted
                    drawn[group] += segment.drawn
    for group in granted:
        yield group, _value(selection.reading, granted[group], drawn[group])


def groups_of(selection: BalanceSelection, holding: Holding) -> set[Group]:
    """The groups of the gauges that a selected balance counts for, unless each segment has a gauge."""
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
    """Whether it has a gauge whose value is 0 for a customer that never had such a balance."""
    if selection.reading is not BalanceReading.REMAINING or selection.seat_key is not None:
        return False
    return not selection.specifiers or any(
        all(one.value is not None for one in specifier.filters) for specifier in selection.specifiers
    )


def gauge_of(customer_id: str, measure: Measure, group: Group) -> Gauge:
    """The gauge of facts of that group; it has no billing period."""
    return Gauge(customer_id, None, measure, group, EVER)


def days_left(end: datetime, time: datetime) -> Decimal:
    """The days from `time` to `end`, rounded up to the last decimal, so that no level is reached before its time.

    Must run under `exact_arithmetic`.
    """
    microseconds = (end - time) // _MICROSECOND
    parts = Fraction(microseconds * 10**MAX_DECIMALS, _MICROSECONDS_A_DAY)
    return Decimal(math.ceil(parts)).scaleb(-MAX_DECIMALS)


def next_change(rule: AlertRule, holdings: Iterable[Holding], after: datetime) -> datetime | None:
    """When time alone next changes a value of an alert on balances, or makes it reach a level; None: never.

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
            # Days are counted from the start of a segment; its start reaches all levels that are reached by then.
            if segment.end is not None and segment.start <= after:
                crossing = next_crossing(rule.thresholds, segment.end, after)
                times += [] if crossing is None else [crossing]
    return min((time for time in times if time > after), default=None)


def next_crossing(thresholds: ThresholdSet, end: datetime, after: datetime) -> datetime | None:
    """When, after the time `after`, the days left to `end` next reach a level; None: never.

    Must run under `exact_arithmetic`.
    """
    left = days_left(end, after)
    levels = [threshold.value for threshold in thresholds.fixed]
    if thresholds.recurring is not None:
        levels.append(thresholds.recurring_level(thresholds.recurrences_reached(left) + 1))
    times = [_time_of_level(end, level) for level in levels if level >= ZERO]
    return min((time for time in times if time > after), default=None)


def _time_of_level(end: datetime, level: Decimal) -> datetime:
    try:
        return end - int(level * _MICROSECONDS_A_DAY) * _MICROSECOND
    except OverflowError:  # more days than the calendar has
        return datetime.min.replace(tzinfo=end.tzinfo)


def measure_takes(measure: Measure, holding: Holding) -> bool:
    """Whether a measure of balances includes a balance: its unit and its selection match."""
    assert measure.balances is not None
    return measure.unit in (None, holding.unit) and measure.balances.takes(holding)


def _value(reading: BalanceReading, granted: Decimal, drawn: Decimal) -> FactValue:
    if reading is BalanceReading.REMAINING:
        return FactValue(granted - drawn)
    if granted <= ZERO:
        return NO_DATA
    return FactValue(drawn if reading is BalanceReading.USED_PERCENT else granted - drawn, granted)


def _days_left(
    own: Iterable[Holding], touched: Iterable[Holding] | None, now: datetime
) -> Iterator[tuple[Group, FactValue]]:
    """The days left of each segment that has an end, by group in order."""
    current = {
        (holding.balance_id, segment.number): FactValue(days_left(segment.end, now))
        for holding in own
        for segment in holding.segments
        # The end itself is included: at the end no days are left.
        if segment.end is not None and segment.start <= now <= segment.end
    }
    found = current
    if touched is not None:
        found = {}
        for holding in touched:
            for segment in holding.segments:
                key = holding.balance_id, segment.number
                ended = segment.end is not None and segment.end < now
                found[key] = current.get(key, ENDED if ended else NO_DATA)
    for (balance_id, number), value in sorted(found.items(), key=lambda item: item[0]):
        yield segment_group(balance_id, number), value


def segment_group(balance_id: str, number: int) -> Group:
    """The group of the gauge of one segment."""
    return ((BALANCE_KEY, balance_id), (SEGMENT_KEY, str(number)))


def moved_by(selection: BalanceSelection, drawn: Decimal) -> Decimal:
    """The change of a gauge's value when that much more is drawn from a segment that it counts."""
    return drawn if selection.reading is BalanceReading.USED_PERCENT else -drawn
