"""Effects: what a put changes for the alerts of its customer, and whether they may have nothing to report.

Most puts are of a customer whose gauges are up to date and below all levels, also of the alerts that cover it after
the put. This module finds, before the lock, what has to be so for that. The statement of the put checks it, and then
no evaluation has to follow. Whatever depends on more than the value of a gauge and one level is evaluated as always.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from engine.evaluation.subjects import thresholds_of
from engine.facts.changed_customer import usage_alerts
from evaluator.alerts import AlertRule
from evaluator.amounts import exact_arithmetic
from evaluator.gauges import Measure
from evaluator.limit_windows import BILLING_PERIOD
from evaluator.limits import LimitChange, Limits
from evaluator.routing import Router
from evaluator.routing_facts import CustomerFacts
from evaluator.transitions import AlertState, trip_levels
from evaluator.watched_gauges import WatchedGauge
from store.accounts.customer_evaluations import Note
from store.accounts.customers import CustomerFact
from store.accounts.quiet_puts import QuietGauge, QuietPut
from store.limits.limits import LimitFact
from store.rules.facts_before_puts import FactsBefore

MOST_GAUGES = 10  # of a put that may be quiet: they are found on the event loop, and read under the lock


@dataclass(frozen=True, slots=True)
class Effect:
    """note: what has to be evaluated for the customer. after: the customer after the put."""

    note: Note
    after: CustomerFacts


def of_customer(fact: CustomerFact, before: FactsBefore, now: datetime) -> Effect | None:
    """The effect of a put of a customer; None if it may change how events count."""
    known, alerts = before.customer, before.alerts
    note = _note(fact.customer_id, before.epoch, now, facts=True, usage=known is not None)
    if known is None:
        made = CustomerFacts(
            fact.customer_id,
            fact.plan_id,
            fact.currency,
            fact.cycle,
            before.epoch,
            now,
            parent_customer_id=fact.parent_customer_id,
        )
        return Effect(note, made.with_alerts(alerts))
    if (known.currency, known.cycle) != (fact.currency, fact.cycle):
        return None
    after = replace(
        known, plan_id=fact.plan_id, plan_end=fact.plan_end_time, parent_customer_id=fact.parent_customer_id
    )
    return Effect(note, after)


def of_limit(fact: LimitFact, before: FactsBefore, now: datetime) -> Effect | None:
    """The effect of a put of a limit; None if its customer is unknown, if it is a plan's, or if no gauge has it."""
    known, subject = before.customer, fact.subject
    if known is None or known.customer_id != subject.customer_id or subject.window != BILLING_PERIOD:
        return None
    change = LimitChange(
        subject.unit,
        subject.groups,
        fact.amount,
        before.epoch,
        enforcement=fact.enforcement,
        limit_id=fact.limit_id,
    )
    # Alerts on totals of invoices are compared with limits of a currency, without groups.
    facts = subject.metric_id is None and not subject.groups
    note = _note(known.customer_id, before.epoch, now, facts=facts, limit_unit=subject.unit.key)
    return Effect(note, replace(known, limits=Limits([change], known.limits)))


def quiet_put(router: Router, before: FactsBefore, effect: Effect, now: datetime) -> QuietPut | None:
    """Under which conditions a put needs no evaluation; None if it may need one.

    router: of ingest, as it is. It is only read, also if it is of another epoch than the facts.
    """
    note, after = effect.note, effect.after
    if router.epoch < 0 or after.being_erased or after.excluded or before.plan_ids is None:
        return None
    if note.facts and router.fact_rules(after):
        return None
    rules = usage_alerts(router, note, after, before.plan_ids)
    unused = bool(rules) and not before.has_gauges
    gauges = _quiet_gauges(router, before, effect, rules, now) if rules and not unused else ()
    if gauges is None:
        return None
    is_known = before.customer is not None
    return QuietPut(after.customer_id, is_known, after.plan_id, before.epoch, router.epoch, gauges, unused)


def _quiet_gauges(
    router: Router, before: FactsBefore, effect: Effect, rules: Sequence[AlertRule], now: datetime
) -> tuple[QuietGauge, ...] | None:
    """The gauges on which these alerts would be evaluated, if all of the gauges may be quiet."""
    measures = dict.fromkeys(rule.measure for rule in rules)
    if before.customer is None or len(measures) > MOST_GAUGES or not all(map(_is_simple, rules)):
        return None
    of_before, of_after = router.apart(), router.apart()
    of_before.know_customer(before.customer)
    of_after.know_customer(effect.after)
    found = []
    for measure in measures:
        watch_before = _watch(of_before, measure, effect.after.customer_id, now)
        watch_after = _watch(of_after, measure, effect.after.customer_id, now)
        if watch_before is None or watch_after is None or watch_before.gauge != watch_after.gauge:
            return None
        levels = _levels(watch_after)
        if levels is None:
            return None
        required_epoch = max(watch_before.required_epoch, watch_before.continuous_since_epoch)
        found.append(QuietGauge(watch_after.gauge, required_epoch, min(levels, default=None)))
    return tuple(found)


def _is_simple(rule: AlertRule) -> bool:
    """Whether an alert watches one gauge of the customer, which only events and the customer's own facts concern."""
    measure = rule.measure
    return not (rule.groups or measure.per_subscription or measure.contract_fields or measure.counts_held)


def _watch(router: Router, measure: Measure, customer_id: str, now: datetime) -> WatchedGauge | None:
    measured = router.customer_measure(measure, customer_id, None, now)
    return None if measured is None else measured.watched_gauge((), now)


def _levels(watch: WatchedGauge) -> list[Decimal] | None:
    """The lowest level of each alert on a gauge on which none has a state; None if one reports falling values."""
    levels = []
    with exact_arithmetic():
        for rule in watch.alerts:
            above, below = trip_levels(thresholds_of(watch, rule), AlertState())
            if below is not None:
                return None
            levels += [] if above is None else [above]
    return levels


def _note(
    customer_id: str,
    epoch: int,
    now: datetime,
    *,
    facts: bool,
    usage: bool = False,
    limit_unit: str | None = None,
) -> Note:
    units = frozenset[str]() if limit_unit is None else frozenset((limit_unit,))
    return Note(customer_id, facts, usage, False, units, frozenset(), epoch, now)
