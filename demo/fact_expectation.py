"""What alerts on balances, invoices and plans have to tell: their lines, held against the plain ledger."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

from demo import world
from demo.books import Books, Key
from demo.posted import Step, Wait
from demo.world import REACHED, RESOLVED, AlertPlan, Crossing, Event, Line, short

RISING = (
    world.MONTHLY_INVOICE_TOTAL_SPEND_THRESHOLD_REACHED,
    world.INVOICE_TOTAL_REACHED,
    world.CREDIT_BALANCE_RECOVERED,
    world.LICENSE_BALANCE_THRESHOLD_REACHED,
)
# These have one line of their own, and say nothing of a balance that was there when they first looked.
ON_EDGES_ONLY = (world.CREDIT_BALANCE_DEPLETED, world.CREDIT_BALANCE_RECOVERED)


@dataclass
class _Watcher:
    """An alert; past: the lines that each of its gauges is past, of which `silent` were never told."""

    plan: AlertPlan
    past: dict[Key, set[Decimal]] = field(default_factory=dict)
    silent: set[tuple[Key, Decimal]] = field(default_factory=set)


class FactExpectation:
    """Books what is posted, and adds what has to be told of it to `crossings` and `told`."""

    def __init__(self, books: Books, crossings: list[Crossing], told: list[Crossing]) -> None:
        self._books = books
        self._crossings = crossings
        self._told = told
        self._watchers: dict[str, list[_Watcher]] = {}
        self._passed: datetime | None = None

    def watch(self, plan: AlertPlan, now: datetime) -> None:
        """An alert is created."""
        watcher = _Watcher(plan)
        self._watchers.setdefault(plan.customer, []).append(watcher)
        self._look(watcher, now, "")

    def step(self, step: Step, now: datetime) -> None:
        """Something is posted, or used."""
        self.pass_to(now)
        self._books.book(step)
        if isinstance(step, Wait):
            return
        event_id = step.event_id if isinstance(step, Event) else ""
        for watcher in self._watchers.get(step.customer, ()):
            self._look(watcher, now, event_id)

    def pass_to(self, now: datetime) -> None:
        """Time passes: each moment at which anything can change is looked at."""
        since, self._passed = self._passed, now
        if since is None:
            return
        for customer, watchers in self._watchers.items():
            days = {
                line.value
                for watcher in watchers
                if watcher.plan.measured == world.DAYS
                for line in watcher.plan.lines
                if line.value is not None
            }
            for moment in sorted({one for one in self._books.moments(customer, days) if since < one <= now}):
                for watcher in watchers:
                    self._look(watcher, moment, "")

    def _look(self, watcher: _Watcher, time: datetime, event_id: str) -> None:
        plan = watcher.plan
        readings: Mapping[Key, Fraction] = self._books.readings(plan, time)
        for key, value in readings.items():
            first = key not in watcher.past
            past = watcher.past.setdefault(key, set())
            for line in plan.lines:
                level = line.value
                assert level is not None
                if level not in past and _is_past(plan, value, level):
                    past.add(level)
                    if first and plan.condition in ON_EDGES_ONLY:
                        watcher.silent.add((key, level))
                    else:
                        self._report(plan, key, REACHED, line, event_id)
                elif level in past and not _is_past(plan, value, level):
                    past.discard(level)
                    if (key, level) in watcher.silent:
                        watcher.silent.discard((key, level))
                    else:
                        self._report(plan, key, RESOLVED, line, event_id)

    def _report(self, plan: AlertPlan, key: Key, kind: str, line: Line, event_id: str) -> None:
        group, start = key
        assert line.value is not None
        crossing = Crossing(
            plan.name, plan.customer, "", plan.measured, group, start, kind, short(line.value), event_id
        )
        self._crossings.append(crossing)
        if kind in line.tell:
            self._told.append(crossing)


def _is_past(plan: AlertPlan, value: Fraction, level: Decimal) -> bool:
    if plan.condition == world.CREDIT_BALANCE_RECOVERED:
        return value > 0
    return value >= Fraction(level) if plan.condition in RISING else value <= Fraction(level)
