"""Rows of the table: one for each gauge of an alert and customer, with their order."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from cli.client.times import to_datetime
from cli.descriptions import describe_customer, describe_measure
from generated.tidemark.v1.customer_alert_pb2 import CustomerAlert, CustomerAlertStatus, GaugeState, ThresholdState
from generated.tidemark.v1.threshold_pb2 import Severity

IN_ALARM = "in alarm"
EVALUATING = "evaluating"
OK = "ok"
NO_DATA = "no data"
DISABLED = "disabled"
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_ORDER = (IN_ALARM, EVALUATING, DISABLED, OK, NO_DATA)


@dataclass(frozen=True)
class StateRow:
    """One gauge of one alert for one customer. An alert without data has one row, without a gauge.

    customer: the customer, and the subscription if the gauge has one. next_level: the nearest level that is not
    reached. reached: code and level of each reached threshold. severity: the highest of the reached thresholds.
    silent: every reached threshold was reached before the alert was created, so no notification was sent.
    """

    status: str
    customer: str
    alert: str
    measure: str = ""
    value: Decimal | None = None
    next_level: Decimal | None = None
    reached: tuple[str, ...] = ()
    change_time: datetime | None = None
    alert_id: str = ""
    severity: Severity.ValueType = Severity.SEVERITY_UNSPECIFIED
    silent: bool = False
    subscription_id: str = ""
    customer_id: str = ""
    thresholds: tuple[ThresholdState, ...] = ()

    @property
    def severity_word(self) -> str:
        """`critical`, `warning` or `info`; empty if the thresholds have no severity."""
        return _severity_word(self.severity)

    def as_json(self) -> dict[str, Any]:
        """The row as JSON: amounts as decimal strings, times in RFC 3339."""
        return {
            "status": self.status.replace(" ", "_"),
            "customer_id": self.customer_id,
            "subscription_id": self.subscription_id,
            "alert_id": self.alert_id,
            "alert_display_name": self.alert,
            "severity": self.severity_word,
            "silent": self.silent,
            "measure": self.measure,
            "value": None if self.value is None else f"{self.value:f}",
            "next_level": None if self.next_level is None else f"{self.next_level:f}",
            "reached": [
                {
                    "level": one.level,
                    "code": one.threshold.code,
                    "severity": _severity_word(one.threshold.severity),
                    "silent": one.silent,
                }
                for one in self.thresholds
                if one.in_alarm
            ],
            "change_time": None if self.change_time is None else self.change_time.isoformat(),
        }

    @property
    def nearness(self) -> Decimal:
        """The value as a part of the next level, from 0 to 1; 0 if there is no next level."""
        if self.value is None or not self.next_level or self.next_level < 0:
            return Decimal(0)
        return max(Decimal(0), min(Decimal(1), self.value / self.next_level))


def _severity_word(severity: Severity.ValueType) -> str:
    return Severity.Name(severity).removeprefix("SEVERITY_").lower() if severity else ""


def sort_rows(found: Iterable[StateRow]) -> list[StateRow]:
    """Gauges in alarm first, the most severe and the latest on top; then by nearness to the next level."""
    return sorted(
        found,
        key=lambda row: (
            _ORDER.index(row.status),
            -row.severity,
            -(row.change_time or _NEVER).timestamp() if row.status == IN_ALARM else 0,
            -row.nearness,
            row.customer,
            row.alert,
            row.measure,
        ),
    )


def state_rows(state: CustomerAlert) -> list[StateRow]:
    """The rows of one alert for one customer."""
    evaluating = state.status == CustomerAlertStatus.CUSTOMER_ALERT_STATUS_EVALUATING
    if not state.gauges:
        status = EVALUATING if evaluating else NO_DATA if state.no_data else OK
        return [
            StateRow(
                DISABLED if state.disabled_reason else status,
                state.customer_id,
                state.alert.display_name,
                alert_id=state.alert.alert_id,
                customer_id=state.customer_id,
            )
        ]
    return [_row(state, gauge, evaluating) for gauge in state.gauges]


def _row(state: CustomerAlert, gauge: GaugeState, evaluating: bool) -> StateRow:
    in_alarm = [threshold for threshold in gauge.thresholds if threshold.in_alarm]
    reached = tuple(f"{threshold.threshold.code} {threshold.level}".lstrip() for threshold in in_alarm)
    status = IN_ALARM if reached else EVALUATING if evaluating else OK
    return StateRow(
        status=status,
        customer=describe_customer(gauge.gauge),
        alert=state.alert.display_name,
        measure=describe_measure(gauge.gauge),
        value=Decimal(gauge.gauge.value) if gauge.gauge.value else None,
        next_level=_next_level(gauge),
        reached=reached,
        change_time=to_datetime(gauge.change_time) if gauge.HasField("change_time") else None,
        alert_id=state.alert.alert_id,
        severity=max((threshold.threshold.severity for threshold in in_alarm), default=Severity.SEVERITY_UNSPECIFIED),
        silent=bool(in_alarm) and all(threshold.silent for threshold in in_alarm),
        subscription_id=gauge.gauge.subscription_id,
        customer_id=gauge.gauge.customer_id,
        thresholds=tuple(gauge.thresholds),
    )


def _next_level(gauge: GaugeState) -> Decimal | None:
    """The nearest level that is not reached, of fixed, percentage and recurring thresholds."""
    fixed = [threshold for threshold in gauge.thresholds if threshold.threshold.value]
    ahead = [Decimal(threshold.threshold.value) for threshold in fixed if not threshold.in_alarm]
    # A percentage threshold has a level only if there is a limit.
    percents = [threshold for threshold in gauge.thresholds if threshold.threshold.percent_of_limit]
    ahead += [Decimal(threshold.level) for threshold in percents if threshold.level and not threshold.in_alarm]
    for threshold in gauge.thresholds:
        if threshold.threshold.recurring_step:
            base = max((Decimal(other.threshold.value) for other in fixed), default=Decimal(0))
            start = Decimal(threshold.level) if threshold.in_alarm else base
            ahead.append(start + Decimal(threshold.threshold.recurring_step))
    return min(ahead, default=None)
