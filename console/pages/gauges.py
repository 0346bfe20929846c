"""A gauge as a page shows it: its bar against thresholds and limit, and the curve of its period."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from markupsafe import Markup

from console.plots.bars import Tick, gauge_bar
from console.plots.curves import Curve, Level, Mark
from console.words import alerts, amounts, gauges, times
from generated.tidemark.v1 import alert_pb2, customer_alert_pb2, notification_pb2
from generated.tidemark.v1.threshold_pb2 import TRANSITION_KIND_REACHED


@dataclass(frozen=True)
class Shown:
    """A gauge, ready to be shown. levels: label and state of each threshold. curve: None where there is none."""

    state: customer_alert_pb2.GaugeState
    title: str
    where: str
    value: str
    held: str
    limit: str
    of_limit: str
    next: str
    bar: Markup
    levels: Sequence[tuple[str, bool, Any]]
    curve: Curve | None
    is_exact: bool
    in_alarm: bool


def shown_alert(
    alert: alert_pb2.Alert,
    state: customer_alert_pb2.GaugeState,
    series: Any,
    crossings: Sequence[notification_pb2.Notification],
    now: datetime,
    zone: str,
) -> Shown:
    """A gauge of an alert. series: the answer of GetCustomerAlertSeries, or None."""
    gauge, unit = state.gauge, gauges.unit_of(state.gauge)
    value, limit = amounts.decimal(gauge.value), amounts.decimal(gauge.limit)
    levels = []
    ticks = []
    for one in state.thresholds:
        level = level_of(one, limit)
        words = alerts.threshold_words(one.threshold, unit)
        if level is not None and (one.threshold.percent_of_limit or one.threshold.recurring_step):
            words = f"{words}: {unit(f'{level:f}')}"
        levels.append((words, one.in_alarm, one))
        if level is not None:
            kind = "reached" if one.in_alarm else "open"
            ticks.append(Tick(level, f"{words}{', reached' if one.in_alarm else ''}", kind))
    upcoming = amounts.decimal(state.next_level)
    if upcoming is not None and all(tick.level != upcoming for tick in ticks):
        ticks.append(Tick(upcoming, f"next: {unit(state.next_level)}"))
    if limit is not None:
        ticks.append(Tick(limit, f"limit: {unit(gauge.limit)}", "limit"))
    in_alarm = any(one.in_alarm for one in state.thresholds)
    return Shown(
        state=state,
        title=gauges.measured(gauge),
        where=gauges.where(gauge),
        value=unit(gauge.value),
        held=unit(gauge.held) if amounts.decimal(gauge.held) else "",
        limit=unit(gauge.limit) if gauge.limit else "",
        of_limit=amounts.percent_of(value, limit),
        next=_next(state, unit, rising=alerts.is_rising(alert)),
        bar=gauge_bar(value, ticks, _bar_label(gauge, unit, ticks), alarm=in_alarm),
        levels=levels,
        curve=None if series is None else _curve(gauge, series, ticks, crossings, now, zone),
        is_exact=series is None or series.is_exact,
        in_alarm=in_alarm,
    )


def level_of(state: customer_alert_pb2.ThresholdState, limit: Decimal | None) -> Decimal | None:
    """The level of a threshold on a gauge with this limit; None where there is none."""
    if state.level:
        return amounts.decimal(state.level)
    percentage = amounts.decimal(state.threshold.percent_of_limit)
    if percentage is not None:
        return None if limit is None else limit * percentage / 100
    return amounts.decimal(state.threshold.value)


def _next(state: customer_alert_pb2.GaugeState, unit: gauges.Unit, *, rising: bool) -> str:
    if not state.next_level:
        return ""
    distance = unit(state.next_level_distance)
    return f"{distance} {'below' if rising else 'above'} {unit(state.next_level)}"


def _bar_label(gauge: Any, unit: gauges.Unit, ticks: Sequence[Tick]) -> str:
    parts = ", ".join(tick.label for tick in ticks)
    return f"{gauges.measured(gauge)}: {unit(gauge.value)}" + (f"; {parts}" if parts else "")


def _curve(
    gauge: Any,
    series: Any,
    ticks: Sequence[Tick],
    crossings: Sequence[notification_pb2.Notification],
    now: datetime,
    zone: str,
) -> Curve:
    period = series.gauge.billing_period
    unit = gauges.unit_of(gauge)
    points = [(times.at(one.point_time), amounts.decimal(one.value) or Decimal(0)) for one in series.points]
    kinds = {"reached": "reached", "limit": "limit"}
    levels = [Level(tick.level, tick.label, kinds.get(tick.kind, "threshold"), _short(tick, unit)) for tick in ticks]
    return Curve(
        start=times.at(period.start_time),
        end=times.at(period.end_time),
        points=points,
        levels=levels,
        marks=_marks(gauge, crossings, unit),
        zone=zone,
        label=(
            f"{gauges.measured(gauge)} from {times.shown(times.at(period.start_time), zone)};"
            f" now {unit(gauge.value)}. The values are in the table below."
        ),
    )


def _short(tick: Tick, unit: gauges.Unit) -> str:
    level = unit(f"{tick.level:f}")
    return f"limit {level}" if tick.kind == "limit" else level


def _marks(gauge: Any, crossings: Sequence[notification_pb2.Notification], unit: gauges.Unit) -> list[Mark]:
    """What was notified about exactly this gauge."""
    found = []
    for one in crossings:
        if one.WhichOneof("detail") != "evaluation" or not _is_same(one.evaluation.gauge, gauge):
            continue
        for transition in one.evaluation.transitions:
            time = transition.event_time if transition.HasField("event_time") else one.create_time
            reached = transition.kind == TRANSITION_KIND_REACHED
            word = "reached" if reached else "resolved"
            value = amounts.decimal(transition.value)
            if value is not None:
                label = (
                    f"{unit(transition.level)} {word} at {times.shown(times.at(time))}, at {unit(transition.value)}"
                )
                found.append(Mark(times.at(time), value, label, word))
    return found


def _is_same(first: Any, second: Any) -> bool:
    return bool(
        first.subscription_id == second.subscription_id
        and list(first.group) == list(second.group)
        and first.billing_period == second.billing_period
    )
