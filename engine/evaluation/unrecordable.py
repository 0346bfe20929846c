"""Unrecordable evaluations: which alerts on which gauges the database refuses, and which events are the cause.

An evaluation asks this only after a commit has failed. What fails is tried alone, under savepoints of the transaction
that is rolled back, so that a fault of one alert costs some statements and not a commit for each event.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from engine.evaluation.gauge_evaluation import Findings, GaugeEvaluation
from engine.evaluation.subjects import Subject, step_of, thresholds_of
from engine.rules.transaction import Transaction
from evaluator.aggregation import Tally
from evaluator.alerts import AlertRule
from evaluator.events import UsageEvent
from evaluator.transitions import AlertState, Evaluation, Step, evaluate
from store.alerts.states import StoredState, write_states
from store.notifications.writing import NewNotification, write_notifications
from store.postgres.savepoints import refusal

# After this many failures in a row of one alert, without any success of it, the rest of that alert is taken as
# failing, too.
SURE = 16


class Unrecordable(Exception):
    """What an evaluation found cannot be stored; nothing of the transaction can be kept.

    events: by identity, with the alert that could not be recorded. customers: those of which no event can be counted,
    because something else of theirs cannot be recorded, with the alert.
    """

    def __init__(self, cause: Exception | None) -> None:
        super().__init__("what an evaluation found cannot be stored")
        self.cause = cause
        self.events: dict[tuple[str, str], str] = {}
        self.customers: dict[str, str] = {}

    def alert_of(self, event: UsageEvent) -> str | None:
        """The alert that keeps an event from being counted; None when there is none."""
        return self.events.get(event.identity) or self.customers.get(event.customer_id)


@dataclass(frozen=True)
class Item:
    """What is to be stored of one alert on one gauge."""

    subject: Subject
    rule: AlertRule
    state: StoredState | None
    notification: NewNotification | None

    @property
    def key(self) -> tuple[UUID, str]:
        """Gauge and alert."""
        return self.subject.movement.watch.gauge.gauge_id, self.rule.alert_id


def items_of(subjects: Iterable[Subject], findings: Findings) -> list[Item]:
    """What is to be stored, by gauge and alert."""
    by_gauge = {subject.movement.watch.gauge.gauge_id: subject for subject in subjects}
    notifications = {
        (one.gauge.gauge_id, one.rule.alert_id): one.notification for one in findings.transitions if one.notification
    }
    # Gauges share these, so that they are few.
    all_watching = {subject.movement.watch.watching for subject in by_gauge.values()}
    rules = {watching: {rule.alert_id: rule for rule in watching.rules} for watching in all_watching}
    found = list[Item]()
    for state in findings.states:
        subject = by_gauge[state.gauge.gauge_id]
        rule = rules[subject.movement.watch.watching][state.alert_id]
        found.append(Item(subject, rule, state, notifications.get((state.gauge.gauge_id, state.alert_id))))
    return found


class RefusalSearch:
    """Finds out which items the database refuses, and why it refused the last of them."""

    def __init__(self, transaction: Transaction) -> None:
        self.error: Exception | None = None
        self._transaction = transaction

    async def refused(self, items: Sequence[Item]) -> list[Item]:
        """Those of the items that cannot be stored. Nothing stays stored."""
        if not items or not await self._fails(items):
            return []
        by_alert: dict[str, list[Item]] = {}
        for item in items:
            by_alert.setdefault(item.rule.alert_id, []).append(item)
        failing: list[Item] = []
        waiting = [list(by_alert.values())]
        while waiting:
            alerts = waiting.pop()
            if len(alerts) == 1:
                failing += await self._of_alert(alerts[0])
            elif await self._fails([item for one in alerts for item in one]):
                middle = len(alerts) // 2
                waiting += [alerts[middle:], alerts[:middle]]
        return failing

    async def _of_alert(self, items: list[Item]) -> list[Item]:
        failing: list[Item] = []
        any_stored = False
        waiting = [items]
        while waiting:
            part = waiting.pop()
            if len(failing) >= SURE and not any_stored:
                failing += part
            elif not await self._fails(part):
                any_stored = True
            elif len(part) == 1:
                failing += part
            else:
                middle = len(part) // 2
                waiting += [part[middle:], part[:middle]]
        return failing

    async def _fails(self, items: Sequence[Item]) -> bool:
        states = [item.state for item in items if item.state is not None]
        notifications = [item.notification for item in items if item.notification is not None]
        connection, organization_id = self._transaction.driver, self._transaction.organization_id

        async def write() -> None:
            if states:
                await write_states(connection, organization_id, states)
            if notifications:
                await write_notifications(connection, organization_id, notifications, self._transaction.now)

        error = await refusal(connection, write)
        self.error = error or self.error
        return error is not None


def add_guilty_events(
    unrecordable: Unrecordable,
    refused: Iterable[Item],
    tallies: Mapping[Subject, Tally],
    evaluation: GaugeEvaluation,
) -> None:
    """Adds the events because of which something would be stored that cannot be.

    tallies: of the subjects, without their events. evaluation: in which the items were found. Must run under
    `exact_arithmetic`.
    """
    for item in refused:
        subject, rule = item.subject, item.rule
        gauge = subject.movement.watch.gauge
        if not subject.movement.entries or subject.reading is not None:
            unrecordable.customers.setdefault(gauge.customer_id, rule.alert_id)
            continue
        tally = tallies[subject]
        base = gauge.measure.shown(tally.value, subject.scale)
        state, lead = evaluation.beginning(subject, rule, evaluation.states.get(item.key), base)
        for event in guilty_events(item, tally, state, lead, evaluation.now):
            unrecordable.events.setdefault(event.identity, rule.alert_id)


def guilty_events(
    item: Item, before: Tally, state: AlertState, lead: Sequence[Step], now: datetime
) -> list[UsageEvent]:
    """The events of a gauge that cannot be counted because of an alert that cannot be recorded.

    before: the gauge's tally without its events. state: the alert's. lead: the steps that come before those of the
    events. Each event that would cause something to be recorded is left out; those after it are evaluated as if it
    had not come. Must run under `exact_arithmetic`.
    """
    subject, rule, tally = item.subject, item.rule, before
    watch = subject.movement.watch
    thresholds = thresholds_of(watch, rule)
    base = watch.gauge.measure.shown(tally.value, subject.scale)

    def records_anything(found: Evaluation) -> bool:
        return any(one.notified or item.notification is None for one in found.transitions)

    found = evaluate(thresholds, state, base, lead, now, rule.retired_for(watch.gauge.group, state.reached))
    if records_anything(found):  # already before the first event
        return [event for _, event in subject.movement.entries]
    guilty = []
    state = found.state
    for amount, event in subject.movement.entries:
        earlier = replace(tally, unseen=set(tally.unseen))
        step = step_of(subject, tally, amount, event)
        found = evaluate(thresholds, state, base, [step], now)
        if records_anything(found):
            guilty.append(event)
            tally = earlier
        else:
            state, base = found.state, step.value
    return guilty or [event for _, event in subject.movement.entries]
