"""The careful way to write what an evaluation found: it finds out which alerts of which gauges cannot be recorded.

It is taken only after a commit has failed. What fails is tried alone, under savepoints of the transaction that
is rolled back, so that a fault of one alert costs some statements and not a commit for each event.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from engine.evaluation.subjects import Subject, ladder_of, step_of
from evaluator.aggregation import Tally
from evaluator.alerts import AlertRule
from evaluator.events import UsageEvent
from evaluator.transitions import AlertState, Evaluation, Step, evaluate
from store.alerts.states import StoredState, write_states
from store.notifications.writing import NewNotification, write_notifications
from store.postgres.database import DriverConnection
from store.postgres.savepoints import refusal

# So many in a row that fail, and none of their alert that does not, stand for all of that alert.
SURE = 16


class Unrecordable(Exception):
    """What an evaluation found cannot be stored; nothing of the transaction can be kept.

    events: by identity, with the alert that could not be recorded. customers: all of whose events wait for something
    that cannot be recorded, with the alert.
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


class Probe:
    """Finds out which items the database refuses, and why it refused the last of them."""

    def __init__(self, connection: DriverConnection, organization_id: int, now: datetime) -> None:
        self.error: Exception | None = None
        self._connection = connection
        self._organization_id = organization_id
        self._now = now

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

        async def write() -> None:
            if states:
                await write_states(self._connection, self._organization_id, states)
            if notifications:
                await write_notifications(self._connection, self._organization_id, notifications, self._now)

        error = await refusal(self._connection, write)
        self.error = error or self.error
        return error is not None


def guilty_events(
    item: Item, before: Tally, state: AlertState, lead: Sequence[Step], now: datetime
) -> list[UsageEvent]:
    """The events of a gauge that an alert which cannot be recorded keeps from being counted.

    before: the gauge's tally without its events. state, lead: what the alert knows, and what it steps through ahead
    of the events. Each event that would bring something to be recorded is left out; those after it are followed as if
    it had not come. Must run under `exact_arithmetic`.
    """
    subject, rule, tally = item.subject, item.rule, before
    watch = subject.movement.watch
    ladder = ladder_of(watch, rule)
    base = watch.gauge.measure.shown(tally.value, subject.scale)
    everything = [event for _, event in subject.movement.entries]

    def says_anything(found: Evaluation) -> bool:
        return any(one.notified or item.notification is None for one in found.transitions)

    found = evaluate(ladder, state, base, lead, now, rule.retired_by_key)
    if says_anything(found):  # already before the first event
        return everything
    guilty = []
    state = found.state
    for amount, event in subject.movement.entries:
        earlier = replace(tally, unseen=set(tally.unseen))
        step = step_of(subject, tally, amount, event)
        found = evaluate(ladder, state, base, [step], now)
        if says_anything(found):
            guilty.append(event)
            tally = earlier
        else:
            state, base = found.state, step.value
    return guilty or everything
