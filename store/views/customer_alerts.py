"""What an alert says of one customer: the gauges that it watches, their states, and what they add up to."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from evaluator.definitions import AlertDefinition, DefinitionState
from evaluator.exclusions import ExclusionReason
from evaluator.gauges import Gauge
from evaluator.transitions import AlertState


class CustomerAlertStatus(StrEnum):
    """What an alert says of a customer."""

    OK = "OK"
    IN_ALARM = "IN_ALARM"
    EVALUATING = "EVALUATING"


@dataclass(frozen=True)
class GaugeState:
    """A gauge in its current period, and what one alert says of it.

    value: unset where there is nothing to measure. sequence: of the alert's last notification of it, 0 before the
    first. change_time, change_reason: of the last change of the state. limit: of the gauge, where thresholds are in
    percent of it.
    """

    gauge: Gauge
    value: Decimal | None
    state: AlertState
    sequence: int
    change_time: datetime | None
    change_reason: str | None
    limit: Decimal | None = None


@dataclass(frozen=True)
class CustomerAlert:
    """An alert and the customer's gauges that it watches, those of current billing periods only.

    gauges: in the order of subscription and group; none for an alert that is not evaluated. no_data: the alert is
    evaluated, and nothing carries what it measures; a balance reads 0 then. disabled: why an active alert is not
    evaluated for this customer.
    """

    definition: AlertDefinition
    customer_id: str
    gauges: tuple[GaugeState, ...]
    no_data: bool
    disabled: ExclusionReason | None = None

    @property
    def status(self) -> CustomerAlertStatus | None:
        """What the alert says; None for one that is not evaluated."""
        if self.definition.state is not DefinitionState.ACTIVE or self.disabled is not None:
            return None
        after = self.definition.visit_after
        if after is not None and after < self.customer_id:
            return CustomerAlertStatus.EVALUATING
        if any(item.state.in_alarm for item in self.gauges):
            return CustomerAlertStatus.IN_ALARM
        return CustomerAlertStatus.OK
