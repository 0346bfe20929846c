"""The gauges of balances, invoices and plans, explained: their values are those that answers show."""

from collections.abc import Sequence
from datetime import datetime

from engine.explanation.findings import ExplainedGauge, LimitSource, Reason
from engine.explanation.next_notification import next_notification
from engine.explanation.usage_gauge import reason_of_state, reason_of_thresholds
from evaluator.alerts import AlertRule
from evaluator.amounts import exact_arithmetic
from evaluator.transitions import Step, evaluate
from store.views.customer_alerts import GaugeState


def explain_fact_gauges(
    rule: AlertRule, gauges: Sequence[GaugeState], limits: Sequence[LimitSource | None], now: datetime
) -> list[ExplainedGauge]:
    """Explains gauges. limits: of each."""
    return [_explain(rule, one, limit, now) for one, limit in zip(gauges, limits, strict=True)]


def _explain(rule: AlertRule, one: GaugeState, limit: LimitSource | None, now: datetime) -> ExplainedGauge:
    with exact_arithmetic():
        thresholds = rule.thresholds_for(one.gauge.group).with_limit(one.limit)
        following = None
        reason = reason_of_state(thresholds, one.state) or reason_of_thresholds(thresholds)
        if one.value is not None:
            settled = evaluate(thresholds, one.state, one.value, [Step(one.value, None)], now)
            # A type that notifies of changes only does not notify of a value that is there from the beginning.
            if rule.condition_type.on_edges_only and settled.transitions:
                settled = evaluate(thresholds, one.state, one.value, [], now)
            following = next_notification(thresholds, settled, one.value, None, now)
        if reason is None:
            reason = Reason.NOTHING_COUNTED if one.value is None else Reason.NOT_REACHED
    return ExplainedGauge(
        gauge=one.gauge,
        value=one.value,
        thresholds=thresholds,
        state=one.state,
        reason=reason,
        next=following,
        sequence=one.sequence,
        change_time=one.change_time,
        change_reason=one.change_reason,
        limit=limit,
        only_changes=rule.condition_type.on_edges_only,
    )
