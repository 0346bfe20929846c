"""Random calls in random order: every answer, state and notification is that of the reference model.

A Hypothesis state machine makes random calls to two replicas on one database, restarts them and lets months pass; the
same happens to the model. A step is one rule that was carried out: one call of the API (a batch of usage is one), one
restart, one month. Each example is an organization of its own, on the same servers.
"""

import asyncio
import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from typing import Any, ClassVar

from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.reference.alerts import Alert
from tests.reference.gauges import Event
from tests.reference.thresholds import Threshold
from tests.reference.usage import UsageModel
from tests.support.usage import draws
from tests.support.usage.comparison import Comparison
from tests.support.usage.draws import (
    CUSTOMERS,
    DAYS_AGO,
    FIELDS,
    METRICS,
    PLANS,
    START,
    SUBSCRIPTIONS,
    Again,
    New,
)
from tests.support.usage.stage import MONTHS, REPLICAS, Stage

# Of both tests together, which two processes carry out side by side. The same seed draws the same steps in each run;
# `make test-random` draws others.
STEPS = int(os.environ.get("TIDEMARK_TEST_STEPS") or "2000")
TIME_LIMIT = 600.0 + STEPS / 10  # seconds for each of them, several times what they take on a busy machine
STEPS_PER_EXAMPLE = 50
MAX_EXAMPLES_PER_ROUND = 20  # in rounds, since examples that come out too long are not counted by Hypothesis

STEPS_BETWEEN_RESTARTS = 40  # of one organization; a restart takes as long as dozens of calls

MOST_ALERTS = 4  # at a time; one more, and one is archived instead

Draw = Callable[[st.SearchStrategy[Any]], Any]

KINDS = {
    "usage": 12,
    "void": 3,
    "create": 3,
    "edit": 4,
    "overrides": 1,
    "rename": 1,
    "disable": 3,
    "enable": 3,
    "reset": 1,
    "put": 2,
    "check_state": 3,
}
WEIGHTED = [kind for kind, weight in KINDS.items() for _ in range(weight)]

replicas = st.integers(0, REPLICAS - 1)
customers = st.sampled_from(CUSTOMERS)


class Machine(RuleBasedStateMachine):
    """The calls to one organization, from the first to a comparison of all that is stored for it."""

    stage: ClassVar[Stage]
    streams: ClassVar[bool]

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Event] = []
        self.month = 0
        self.since_restart = STEPS_BETWEEN_RESTARTS // 2

    @initialize(metric=st.sampled_from(sorted(METRICS)))
    def begin(self, metric: str) -> None:
        """An organization with one metric."""
        self.stage.clock.set(START)
        self.metric = metric
        self.comparison: Comparison = self.stage.run(Comparison.begin(self.stage, metric))

    @property
    def model(self) -> UsageModel:
        """What the organization has to be like."""
        return self.comparison.model

    @rule(data=st.data(), kind=st.sampled_from(WEIGHTED), at=replicas)
    def step(self, data: st.DataObject, kind: str, at: int) -> None:
        """One step, of a kind that is possible now; usage otherwise."""
        if kind not in ("usage", "void", "create", "put") and not self.model.alerts:
            kind = "create"
        getattr(self, f"_{kind}")(data.draw, at)

    def _usage(self, draw: Draw, at: int) -> None:
        size = draw(st.integers(1, 8))
        kinds = draw(st.lists(st.sampled_from("eeeea"), min_size=size, max_size=size))
        items = [draw(draws.events(self.metric) if kind == "e" else draws.again) for kind in kinds]
        work = self.comparison.send([self._event(item) for item in items], at, self.streams)
        self._step("streamed usage" if self.streams else "usage", work)

    def _void(self, draw: Draw, at: int) -> None:
        """Some of the last events; perhaps one of them twice, or one that was never sent."""
        recent = [one.identity for one in self.sent if self.model.now.month - one.time.month <= 1]
        backs = draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
        chosen = [recent[-min(back, len(recent))] for back in backs] if recent else [("ann", "never")]
        self._step("void", self.comparison.void(chosen, at))

    def _create(self, draw: Draw, at: int) -> None:
        if len(self.model.alerts) == MOST_ALERTS:
            return self._step("archive", self.comparison.archive(self._alert(draw).name, at))
        alert = draw(draws.new_alerts(self.metric))
        return self._step("create", self.comparison.create(alert, at))

    def _edit(self, draw: Draw, at: int) -> None:
        """Other thresholds; or one is raised, lowered, removed, added, or notifies of something else."""
        alert = self._alert(draw)
        thresholds = list(alert.thresholds)
        place = draw(st.integers(0, len(thresholds) - 1))
        by = draw(st.integers(-6, 6))
        match draw(st.sampled_from(("all", "notify", "less", "more", "move", "move"))):
            case "all":
                thresholds = list(draw(draws.threshold_lists()))
            case "notify":
                thresholds[place] = replace(thresholds[place], notify_on=draw(draws.kinds))
            case "less" if len(thresholds) > 1:
                del thresholds[place]
            case "more":
                thresholds.append(Threshold(draw(draws.levels), notify_on=draw(draws.kinds)))
            case "move":
                one = thresholds[place]
                thresholds[place] = Threshold(
                    None if one.value is None else one.value + by, one.step, notify_on=one.notify_on
                )
        if len({one.value for one in thresholds}) < len(thresholds):
            thresholds = list(draw(draws.threshold_lists()))
        reset = draw(st.sampled_from((False, False, False, True)))
        paths = draw(st.sampled_from((["thresholds"], ["*"], ["display_name", "thresholds"], [])))
        self._step("edit", self.comparison.edit(replace(alert, thresholds=tuple(thresholds)), paths, reset, at))

    def _overrides(self, draw: Draw, at: int) -> None:
        grouped = [one for one in self.model.alerts.values() if one.per_subscription and one.keys]
        if not grouped:
            return self._edit(draw, at)
        alert = draw(st.sampled_from(grouped))
        changed = replace(alert, overrides=draw(draws.overrides(alert.keys)))
        paths = ["cost_exceeded.threshold_overrides"]
        return self._step("overrides", self.comparison.edit(changed, paths, draw(st.booleans()), at))

    def _rename(self, draw: Draw, at: int) -> None:
        self._step("rename", self.comparison.edit(self._alert(draw), ["display_name"], draw(st.booleans()), at))

    def _disable(self, draw: Draw, at: int) -> None:
        alert = self._alert(draw)
        kind = draw(st.sampled_from((0, 0, 1, 2)))
        target = (draw(customers), "s1")[: kind if alert.per_subscription else min(kind, 1)]
        if target and alert.scope[0] in ("customer", "subscription", "customer plan"):
            target = (alert.scope[1], *target[1:])
        self._step("disable", self.comparison.switch(alert.name, target, False, at))

    def _enable(self, draw: Draw, at: int) -> None:
        """Of what is off, if anything is."""
        off = sorted(one for one in self.model.switched_off if one[0] in self.model.alerts)
        name, *target = draw(st.sampled_from(off)) if off else (self._alert(draw).name,)
        self._step("enable", self.comparison.switch(name, tuple(target), True, at))

    def _reset(self, draw: Draw, at: int) -> None:
        self._step("reset", self.comparison.reset(self._alert(draw).name, draw(customers), at))

    def _put(self, draw: Draw, at: int) -> None:
        plan, fields = draw(st.sampled_from(PLANS)), draw(st.sampled_from(FIELDS))
        put = draw(customers), draw(st.sampled_from(SUBSCRIPTIONS)), plan, fields
        self._step("put", self.comparison.put(*put, at))

    def _check_state(self, draw: Draw, at: int) -> None:
        self._step("check_state", self.comparison.check_state(self._alert(draw), draw(customers), at))

    @precondition(lambda self: self.month + 1 < len(MONTHS) and len(self.sent) > 25 * (self.month + 1))
    @rule()
    def month_ends(self) -> None:
        """Time passes for all."""
        self.month += 1
        self.model.now = MONTHS[self.month]
        self.stage.clock.set(MONTHS[self.month])
        self._step("month", asyncio.sleep(0))

    @precondition(lambda self: self.since_restart >= STEPS_BETWEEN_RESTARTS)
    @rule(number=replicas)
    def restart(self, number: int) -> None:
        """A server is another one from now on."""
        self.since_restart = 0
        self._step("restart", self.comparison.restart(number))

    def teardown(self) -> None:
        """Everything is compared."""
        if hasattr(self, "comparison"):
            self.stage.run(self.comparison.compare())

    def _step(self, kind: str, work: Any) -> None:
        self.stage.steps += 1
        self.stage.kinds[kind] += 1
        self.since_restart += 1
        self.stage.run(work)

    def _alert(self, draw: Draw) -> Alert:
        alert: Alert = draw(st.sampled_from(list(self.model.alerts.values())))
        return alert

    def _event(self, item: New | Again) -> Event:
        if isinstance(item, Again):
            months = [(self.model.now.month - one.time.month, one) for one in self.sent]
            recent = [one for ago, one in months if ago <= 1]  # the others are too old for the service
            if recent:
                event = recent[-min(item.back, len(recent))]
                return replace(event, quantity=event.quantity + 1) if item.changed else event
            item = New(Event("", "ann", START, "other", Fraction(1)), 0)
        number = len(self.sent)
        # Some events are of one time, so that their ids decide what LATEST shows.
        time = self.model.now - timedelta(days=DAYS_AGO[item.place], microseconds=number // 4)
        self.sent.append(replace(item.event, event_id=f"e{number}", time=time))
        return self.sent[-1]


def play(stage: Stage, steps: int, streams: bool, first_seed: int) -> None:
    """Calls organizations until that many steps are done, or one of them disagrees with the model.

    streams: whether usage comes over streams, or in single calls. first_seed: decides what every step is.
    """
    machine = type("Machine", (Machine,), {"stage": stage, "streams": streams})
    for round_number in itertools.count():
        if stage.steps >= steps:
            return
        run_state_machine_as_test(
            # With one seed, every round would make the same calls.
            seed(f"{first_seed}, round {round_number}")(machine),
            settings=settings(
                # The last rounds are small, so that few steps more are done than asked for.
                max_examples=min(MAX_EXAMPLES_PER_ROUND, 1 + (steps - stage.steps) // STEPS_PER_EXAMPLE),
                stateful_step_count=STEPS_PER_EXAMPLE,
                deadline=None,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
