"""Whether a customer has anything that an alert measures, and if not, what its usage lacks."""

from collections.abc import Sequence

from engine.explanation.coverage import counted
from engine.explanation.findings import Check, ExplainedGauge, Reason, StepResult
from evaluator.alerts import AlertRule
from store.usage.event_samples import MAX_EXAMINED, EventSample


def check_data(
    rule: AlertRule, gauges: Sequence[ExplainedGauge], sample: EventSample | None, *, metric_known: bool
) -> StepResult:
    """Whether anything was counted. sample: of the usage; None for an alert on facts."""
    if any(one.reason is not Reason.NOTHING_COUNTED for one in gauges):
        return StepResult(Check.DATA, Reason.PASSED, _counted(sample))
    if sample is None:
        what = "invoices" if rule.measure.invoices is not None else "balances"
        if rule.measure.days_in_plan:
            text = "The customer has no plan with an end (plan_end_time of PutCustomer)."
        else:
            text = f"The customer has no {what} that the alert selects."
        return StepResult(Check.DATA, Reason.NOTHING_COUNTED, text)
    if not metric_known:
        text = (
            f"The metric {rule.measure.metric_id!r} does not exist: no event and no PutMetric has named it. Compare"
            " the spelling with ListMetrics."
        )
        return StepResult(Check.DATA, Reason.METRIC_UNKNOWN, text)
    reason, text = _lacking(rule, sample)
    if not sample.is_complete:
        text = f"{text} (Of the first {MAX_EXAMINED:,} events of the period; there are more.)"
    return StepResult(Check.DATA, reason, text)


def _counted(sample: EventSample | None) -> str:
    if sample is None:
        return "The customer has what the alert measures."
    number = f"{sample.counted:,}" if sample.is_complete else f"at least {sample.counted:,}"
    late = f", {sample.late:,} of them after the period had ended" if sample.late else ""
    voided = ""
    if sample.voided:
        voided = f"; {counted(sample.voided, 'event')} of the period {_were(sample.voided)} voided"
    return f"The alert counts {number} of the customer's events in the period{late}{voided}."


def _were(number: int) -> str:
    return "was" if number == 1 else "were"


def _lacking(rule: AlertRule, sample: EventSample) -> tuple[Reason, str]:
    """What the usage of the sample lacks."""
    unit = rule.measure.metric_id or rule.measure.currency
    what = f"cost in {unit}" if rule.measure.of_cost else f"usage of {unit!r}"
    if sample.counted and sample.ungrouped:
        keys = ", ".join(map(repr, rule.group_keys))
        number = counted(sample.ungrouped, "event")
        lack, move = ("lacks", "it moves") if sample.ungrouped == 1 else ("lack", "they move")
        return (
            Reason.NOT_GROUPED,
            f"{number} of {what} {lack} the property of the groups ({keys}), so {move} no gauge.",
        )
    if sample.filtered:
        belong, do = ("belongs", "does") if sample.filtered == 1 else ("belong", "do")
        filters = (
            f"{belong} to a subscription that is not covered, or {do} not pass the alert's filters or group values"
        )
        return Reason.FILTERED, f"{counted(sample.filtered, 'event')} of {what} {filters}."
    if sample.other_unit:
        others = ", ".join(sample.other_units) or "events without cost"
        kind = "cost in" if rule.measure.of_cost else "usage of"
        own = (
            f"its {counted(sample.other_unit, 'event')} {'has' if sample.other_unit == 1 else 'have'} {kind} {others}"
        )
        text = f"The customer has no {what} in the period; {own}."
        return Reason.OTHER_UNIT, text
    return Reason.NOTHING_COUNTED, f"The customer has no {what} in the period."
