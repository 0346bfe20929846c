"""The state of an alert for one customer: its gauges, their states, and the status of all of them."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from functools import cached_property

from evaluator.definitions import AlertDefinition, DefinitionState
from evaluator.exclusions import ExclusionReason
from evaluator.gauges import Gauge, Group
from evaluator.transitions import AlertState


class CustomerAlertStatus(StrEnum):
    """The status of an alert for a customer."""

    OK = "OK"
    IN_ALARM = "IN_ALARM"
    EVALUATING = "EVALUATING"


@dataclass(frozen=True)
class GaugeState:
    """A gauge in its current period, and the state of one alert on it.

    value: None where there is no data. sequence: of the alert's last notification of the gauge, 0 before the first.
    change_time, change_reason: of the last change of the state. limit: of the gauge, where the alert has percentage
    thresholds. held: what open reservations hold of what it measures; None where it was not read.
    """

    gauge: Gauge
    value: Decimal | None
    state: AlertState
    sequence: int
    change_time: datetime | None
    change_reason: str | None
    limit: Decimal | None = None
    held: Decimal | None = None


@dataclass(frozen=True)
class GaugeSelection:
    """Which gauges of an alert are wanted: those of one subscription, and those with these values of the group."""

    subscription_id: str | None = None
    group: Group = ()

    def includes(self, gauge: Gauge) -> bool:
        """Whether a gauge is wanted."""
        return self.subscription_id in (None, gauge.subscription_id) and all(
            pair in gauge.group for pair in self.group
        )


ALL_GAUGES = GaugeSelection()


@dataclass(frozen=True)
class GaugeTotals:
    """All gauges of an alert and customer together. change_time: the latest of any of them."""

    number: int
    in_alarm: bool
    change_time: datetime | None


@dataclass(frozen=True)
class CustomerAlert:
    """An alert with the customer's gauges that it watches, in current billing periods only.

    gauges: by subscription and group; usage of an alert that is not evaluated shows none. no_data: the alert is
    evaluated, but the customer has nothing that it measures; the sum of balances is 0 then. disabled: why an active
    alert is disabled for this customer. totals: set where `gauges` are only a window of all of them, in the order in
    which answers show them.
    """

    definition: AlertDefinition
    customer_id: str
    gauges: tuple[GaugeState, ...]
    no_data: bool
    disabled: ExclusionReason | None = None
    totals: GaugeTotals | None = None

    @cached_property
    def change_time(self) -> datetime | None:
        """When a threshold was last reached or resolved on any of the gauges."""
        if self.totals is not None:
            return self.totals.change_time
        return max((item.change_time for item in self.gauges if item.change_time is not None), default=None)

    @cached_property
    def status(self) -> CustomerAlertStatus | None:
        """The status; None for an alert that is not evaluated."""
        if self.definition.state is not DefinitionState.ACTIVE or self.disabled is not None:
            return None
        if self.definition.awaits_backfill_of(self.customer_id):
            return CustomerAlertStatus.EVALUATING
        totals = self.totals
        in_alarm = any(item.state.in_alarm for item in self.gauges) if totals is None else totals.in_alarm
        return CustomerAlertStatus.IN_ALARM if in_alarm else CustomerAlertStatus.OK
