"""What the service must do, computed by the reference model from what the demo sends.

The model shares no code with the evaluator: the service is compared with it. Here the demo's definitions, events and
billing steps become the model's, and the model's transitions become the demo's.
"""

from collections.abc import Iterable
from datetime import datetime
from fractions import Fraction

from demo import definitions
from demo.billing_steps import AdjustBalance, PutBalance, PutInvoice, PutPlanEnd, Step, VoidBalance, Wait
from demo.definitions import AlertDefinition, Customer, Event, decimal_text
from demo.transitions import NO_PERIOD, TransitionKey
from tests.reference import alerts, balances, facts, gauges, usage
from tests.reference.facts import FactAlert, FactModel
from tests.reference.gauges import Metric, Recorded
from tests.reference.thresholds import Threshold
from tests.reference.usage import UsageModel

ACCEPTED, DUPLICATE, CONFLICT = "accepted", "duplicate", "conflict"
_VERDICTS = {usage.NEW: ACCEPTED, usage.DUPLICATE: DUPLICATE, usage.CONFLICT: CONFLICT}

_COMMITS, _CREDITS = frozenset({balances.COMMIT}), frozenset({balances.CONTRACT_CREDIT})
_GRANTS, _NONE = frozenset({balances.CREDIT_GRANT}), frozenset[str]()
# The kinds of balances that each condition on facts reads, and what it reads of them.
READINGS = {
    definitions.LOW_REMAINING_DAYS_FOR_COMMIT_SEGMENT_REACHED: (_COMMITS, facts.DAYS_LEFT),
    definitions.LOW_REMAINING_COMMIT_BALANCE_REACHED: (_COMMITS, facts.REMAINING),
    definitions.LOW_REMAINING_COMMIT_PERCENTAGE_REACHED: (_COMMITS, facts.PERCENT_REMAINING),
    definitions.LOW_REMAINING_DAYS_FOR_CONTRACT_CREDIT_SEGMENT_REACHED: (_CREDITS, facts.DAYS_LEFT),
    definitions.LOW_REMAINING_CONTRACT_CREDIT_BALANCE_REACHED: (_CREDITS, facts.REMAINING),
    definitions.LOW_REMAINING_CONTRACT_CREDIT_PERCENTAGE_REACHED: (_CREDITS, facts.PERCENT_REMAINING),
    definitions.LOW_REMAINING_CONTRACT_CREDIT_AND_COMMIT_BALANCE_REACHED: (_COMMITS | _CREDITS, facts.REMAINING),
    definitions.LOW_REMAINING_CONTRACT_CREDIT_AND_COMMIT_PERCENTAGE_REACHED: (
        _COMMITS | _CREDITS,
        facts.PERCENT_REMAINING,
    ),
    definitions.LOW_REMAINING_SEAT_BALANCE_REACHED: (frozenset({balances.SEAT_CREDIT}), facts.REMAINING),
    definitions.LOW_CREDIT_BALANCE_REACHED: (_GRANTS, facts.REMAINING),
    definitions.LOW_REMAINING_CREDIT_PERCENTAGE_REACHED: (_GRANTS, facts.PERCENT_REMAINING),
    definitions.CREDIT_BALANCE_DEPLETED: (_GRANTS, facts.REMAINING),
    definitions.CREDIT_BALANCE_DROPPED: (_GRANTS, facts.REMAINING),
    definitions.CREDIT_BALANCE_RECOVERED: (_GRANTS, facts.REMAINING),
    definitions.LICENSE_BALANCE_THRESHOLD_REACHED: (frozenset({balances.LICENSE_ALLOTMENT}), facts.PERCENT_USED),
    definitions.INVOICE_TOTAL_REACHED: (_NONE, facts.INVOICE_TOTAL),
    definitions.MONTHLY_INVOICE_TOTAL_SPEND_THRESHOLD_REACHED: (_NONE, facts.MONTH_TOTAL),
    definitions.LOW_REMAINING_DAYS_IN_PLAN_REACHED: (_NONE, facts.PLAN_DAYS_LEFT),
}
_RISING = (
    definitions.MONTHLY_INVOICE_TOTAL_SPEND_THRESHOLD_REACHED,
    definitions.INVOICE_TOTAL_REACHED,
    definitions.CREDIT_BALANCE_RECOVERED,
    definitions.LICENSE_BALANCE_THRESHOLD_REACHED,
)
# These have one threshold of their own, and do not notify of a balance that was past it when they were created.
_STARTS_SILENT = (definitions.CREDIT_BALANCE_DEPLETED, definitions.CREDIT_BALANCE_RECOVERED)


class Expectation:
    """The model. transitions: all that must happen; notified: those of them that must be sent to webhooks."""

    def __init__(self, customers: Iterable[Customer], metrics: Iterable[Metric], now: datetime) -> None:
        self.transitions: list[TransitionKey] = []
        self.notified: list[TransitionKey] = []
        self._alerts: dict[str, AlertDefinition] = {}
        self._customers = {customer.customer_id: customer for customer in customers}
        self._usage = UsageModel(now, metrics)
        self._facts = FactModel(now)
        for customer in self._customers.values():
            self._usage.put(customer.customer_id, None, customer.plan, customer.cycle)
            for one in customer.subscriptions:
                self._usage.put(customer.customer_id, one.subscription_id, one.plan, one.cycle)

    def create(self, alert: AlertDefinition, now: datetime) -> None:
        """An alert is created, while no event is in flight. An alert on facts registers its customer."""
        self._alerts[alert.name] = alert
        if alert.condition in READINGS:
            self._facts.wait_until(now)
            self._facts.register(alert.customer)
            self._facts.create(fact_alert(alert))
        else:
            self._usage.now = now
            self._usage.create(usage_alert(alert))
        self._collect()

    def send(self, event: Event) -> str:
        """A valid event is sent: ACCEPTED, DUPLICATE or CONFLICT."""
        [verdict], _ = self._usage.commit([self._event(event)])
        self._collect()
        return _VERDICTS[verdict]

    def take(self, step: Step, now: datetime) -> None:
        """A step of the billing script is taken; usage of the script is sent, too."""
        model = self._facts
        model.wait_until(now)
        match step:
            case PutBalance():
                model.put(step.customer, step.terms, step.spans)
            case AdjustBalance():
                assert model.adjust(step.customer, step.balance_id, step.amount, 1)
            case VoidBalance():
                assert model.void(step.customer, step.balance_id)
            case PutInvoice():
                model.post_invoice(step.customer, step.invoice)
            case PutPlanEnd():
                model.end_plan(step.customer, step.end)
            case Event():
                model.commit([self._event(step)])
            case Wait():
                pass
        self._collect()

    def period_start(self, customer_id: str, time: datetime) -> datetime:
        """The start of the customer's billing period that contains `time`."""
        return self._usage.period_start(customer_id, None, time)

    def values(self) -> dict[gauges.Gauge, Fraction]:
        """The value of every gauge of usage and cost that an alert has watched."""
        return self._usage.values()

    def _event(self, event: Event) -> gauges.Event:
        customer = self._customers.get(event.customer) or Customer(event.customer)
        return gauges.Event(
            event_id=event.event_id,
            customer=event.customer,
            time=event.time,
            metric=event.metric,
            quantity=Fraction(event.quantity),
            subscription=event.subscription or None,
            cost=Fraction(event.cost) if event.cost else None,
            currency=(event.currency or customer.currency) if event.cost else None,
            properties=tuple(sorted(event.properties.items())),
        )

    def _collect(self) -> None:
        """Takes over the transitions that the models have recorded since the last time."""
        for recorded in (*self._usage.recorded, *self._facts.recorded):
            key = self._key(recorded)
            self.transitions.append(key)
            if recorded.notified:
                self.notified.append(key)
        self._usage.recorded.clear()
        self._facts.recorded.clear()

    def _key(self, recorded: Recorded) -> TransitionKey:
        gauge, transition = recorded.gauge, recorded.transition
        return TransitionKey(
            alert=recorded.alert,
            customer=gauge.customer,
            subscription=gauge.subscription or "",
            measured=self._alerts[recorded.alert].measured,
            group=gauge.group,
            period_start=gauge.period or NO_PERIOD,
            kind=transition.kind,
            level=decimal_text(transition.level),
            event_id=transition.event_id or "",
        )


def usage_alert(alert: AlertDefinition) -> alerts.Alert:
    """An alert on usage or cost as the model takes it."""
    scope: tuple[str, ...] = ("all",)
    if alert.plan:
        scope = ("plan", alert.plan)
    elif alert.subscription:
        scope = ("subscription", alert.customer, alert.subscription)
    elif alert.customer:
        scope = ("customer", alert.customer)
    return alerts.Alert(
        name=alert.name,
        measure=("cost" if alert.of_cost else "usage", alert.measured),
        per_subscription=alert.per_subscription,
        scope=scope,
        keys=alert.groups,
        thresholds=alert.thresholds,
        evaluate=alert.evaluate_on_create,
    )


def fact_alert(alert: AlertDefinition) -> FactAlert:
    """An alert on balances, invoices or a plan as the model takes it."""
    kinds, reading = READINGS[alert.condition]
    thresholds = alert.thresholds
    if alert.condition == definitions.CREDIT_BALANCE_RECOVERED:
        thresholds = (Threshold(Fraction(0), exclusive=True),)
    return FactAlert(
        name=alert.name,
        reading=reading,
        thresholds=thresholds,
        rising=alert.condition in _RISING,
        customer=alert.customer,
        kinds=kinds,
        unit=None if alert.measured in (definitions.DAYS, definitions.PERCENT) else ("cost", alert.measured),
        types=frozenset(alert.types),
        seat_key=alert.seat_key or None,
        divide_by=alert.divide_by or None,
        excluded=alert.excluded,
        starts_silent=alert.condition in _STARTS_SILENT,
    )
