"""One customer of the story: its model, and the notifications that must exist of it.

The model of each customer is a `UsageModel` of its own, which has the customer's alerts and the wide ones. All that
happens to one customer happens in a known order, except in a race: there a change and a batch of usage are on their
way at the same time, and there is one branch for each order until what the service shows decides.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from fractions import Fraction

from tests.reference.alerts import Notification
from tests.reference.gauges import Event, Gauge
from tests.reference.thresholds import State, Transition, furthest
from tests.reference.usage import UsageModel

Place = tuple[str, Gauge]  # name of the alert, and gauge
Notice = tuple[str, str, str]  # name of a disabled alert, and the customer and subscription that it is disabled for


@dataclass(frozen=True)
class Expected:
    """The transitions of one alert on one gauge in one step of the model.

    by_change: a change of a rule caused them, which the service evaluates in the background. joins: usage that may
    come before that evaluation; one notification then has both.
    """

    sent: Notification
    by_change: bool
    joins: bool


@dataclass
class Outcome:
    """What the answer to a batch must be."""

    verdicts: list[str]
    values: dict[Gauge, Fraction]
    transitions: Counter[tuple[str, Gauge, Transition]]

    def difference(
        self, values: Mapping[Gauge, Fraction], transitions: Counter[tuple[str, Gauge, Transition]]
    ) -> str:
        """How the answer differs from this, for a person to read."""
        lines = ["an answer differs from the model:"]
        for gauge in self.values.keys() | values.keys():
            if self.values.get(gauge) != values.get(gauge):
                lines.append(f"  {gauge}: expected {self.values.get(gauge)}, found {values.get(gauge)}")
        lines += [f"  missing: {one}" for one in self.transitions - transitions]
        lines += [f"  unexpected: {one}" for one in transitions - self.transitions]
        return "\n".join(lines)


@dataclass
class Branch:
    """The customer, when everything happened in one certain order."""

    model: UsageModel
    expected: dict[Place, list[Expected]] = field(default_factory=lambda: defaultdict(list))
    _known: int = 0

    def changes(self, change: Callable[["Branch"], object]) -> None:
        """A rule or a fact of the customer changes."""
        change(self)
        for sent in self._new():
            self.expected[sent.alert, sent.gauge].append(Expected(sent, by_change=True, joins=False))

    def uses(self, events: Sequence[Event], unsettled: frozenset[str]) -> Outcome:
        """A batch of the customer is counted. unsettled: alerts whose last change may not be evaluated yet."""
        verdicts, values = self.model.commit(events)
        found = self._usage(unsettled)
        return Outcome(verdicts, values, found)

    def voids(self, identities: Sequence[tuple[str, str]], unsettled: frozenset[str]) -> list[str]:
        """Some events of the customer are taken back."""
        verdicts = self.model.void(identities)
        self._usage(unsettled)
        return verdicts

    def _usage(self, unsettled: frozenset[str]) -> Counter[tuple[str, Gauge, Transition]]:
        found: Counter[tuple[str, Gauge, Transition]] = Counter()
        for sent in self._new():
            one = Expected(sent, by_change=False, joins=sent.alert in unsettled)
            self.expected[sent.alert, sent.gauge].append(one)
            found.update((sent.alert, sent.gauge, each) for each in sent.transitions if each.event_id)
        return found

    def _new(self) -> list[Notification]:
        new = self.model.notifications[self._known :]
        self._known = len(self.model.notifications)
        return new

    def explains(self, observed: Mapping[Place, Sequence[Notification]]) -> bool:
        """Whether exactly these notifications must exist."""
        places = {place for place, steps in self.expected.items() if steps}
        return observed.keys() == places and all(
            _explained(self.expected[place], observed[place]) for place in places
        )

    def states(self, observed: Mapping[Place, Sequence[Notification]]) -> dict[Place, State]:
        """The states that the alerts must have; the sequences are those of the last notifications."""
        found = {}
        for place, state in self.model.states.items():
            found[place] = replace(state, sequence=len(observed.get(place, ())))
        return {place: state for place, state in found.items() if state != State()}


class Customer:
    """A customer of one client.

    unsettled: the alerts that may not have been evaluated since their last change. evaluating: those of them whose
    evaluation the service reports. raced: the alert of which a change and a batch were made in an order that is not
    known yet. keys: the uniqueness keys of its alerts.
    """

    def __init__(self, name: str, model: UsageModel) -> None:
        self.name = name
        self.branches = [Branch(model)]
        self.sent: list[Event] = []
        self.unsettled: set[str] = set()
        self.evaluating: set[str] = set()
        self.raced: str | None = None
        self.keys: dict[str, str] = {}

    def free(self, alert: str) -> None:
        """The uniqueness key of an archived alert may be used again."""
        self.keys = {key: name for key, name in self.keys.items() if name != alert}

    def difference(
        self, observed: Mapping[Place, Sequence[Notification]], stored: Mapping[Place, State] | None = None
    ) -> str:
        """What no branch explains, for a person to read. stored: see `decide`."""
        lines = [f"{self.name}: none of {len(self.branches)} orders explains its notifications"]
        for number, branch in enumerate(self.branches):
            for place in sorted({*branch.expected, *observed}, key=str):
                steps, found = branch.expected.get(place, []), observed.get(place, ())
                if not _explained(steps, found):
                    lines.append(f"order {number}, {place[0]} on {place[1]}")
                    lines += [f"  expected {'(change) ' * one.by_change}{one.sent.transitions}" for one in steps]
                    lines += [f"  found {one.sequence}: {one.transitions}" for one in found]
            if stored is not None:
                lines.append(f"order {number}: {self.raced} has {_of_alert(branch.states(observed), self.raced)}")
        if stored is not None:
            lines.append(f"stored: {_of_alert(stored, self.raced)}")
        return "\n".join(lines)

    @property
    def model(self) -> UsageModel:
        """The model, when there is only one."""
        [branch] = self.branches
        return branch.model

    def changes(self, change: Callable[[Branch], object], *alerts: str) -> None:
        """A change that was answered. alerts: those that are evaluated in the background because of it."""
        for branch in self.branches:
            branch.changes(change)
        self.unsettled.update(alerts)
        self.evaluating.update(alerts)

    def put(self, change: Callable[[Branch], object]) -> None:
        """A fact that was put. It is evaluated before the answer, but not before the answer to a repeated put."""
        for branch in self.branches:
            branch.changes(change)
            self.unsettled.update(branch.model.alerts)

    def races(self, change: Callable[[Branch], object], alert: str, events: Sequence[Event]) -> list[Outcome]:
        """A change and a batch at the same time: the possible outcomes of the batch, one for each branch."""
        before = frozenset(self.unsettled)
        outcomes, branches = [], []
        for branch in self.branches:
            first, second = branch, deepcopy(branch)
            outcomes.append(first.uses(events, before))
            first.changes(change)
            second.changes(change)
            outcomes.append(second.uses(events, before | {alert}))
            branches += [first, second]
        self.branches = branches
        self.raced = alert
        self.unsettled.add(alert)
        self.evaluating.add(alert)
        return outcomes

    def uses(self, events: Sequence[Event]) -> list[Outcome]:
        """A batch: its possible outcomes, one for each branch."""
        return [branch.uses(events, frozenset(self.unsettled)) for branch in self.branches]

    def keep(self, fitting: Sequence[bool]) -> None:
        """Keeps only the branches that fit what the service showed."""
        self.branches = [branch for branch, fits in zip(self.branches, fitting, strict=True) if fits]

    def decide(
        self, observed: Mapping[Place, Sequence[Notification]], stored: Mapping[Place, State] | None = None
    ) -> bool:
        """Keeps one branch that explains all notifications of the customer; False when none does.

        stored: the states of the raced alert that the branch must explain, too. They are needed after a race: two
        orders can send the same notifications and leave different states; and while notifications are on their way,
        those that have arrived can fit the wrong order.
        """
        found = [
            branch
            for branch in self.branches
            if branch.explains(observed)
            and (stored is None or _of_alert(branch.states(observed), self.raced) == _of_alert(stored, self.raced))
        ]
        if found:
            self.branches = found[:1]
        return bool(found)


def _of_alert(states: Mapping[Place, State], alert: str | None) -> dict[Place, State]:
    return {place: state for place, state in states.items() if place[0] == alert and state != State()}


def _explained(steps: Sequence[Expected], observed: Sequence[Notification]) -> bool:
    """Whether the notifications are those of the steps, where one may join two of them."""
    place = 0
    for sequence, found in enumerate(observed, start=1):
        if place == len(steps):
            return False
        step = steps[place]
        transitions = step.sent.transitions
        following = steps[place + 1] if place + 1 < len(steps) else None
        joined = found.transitions != transitions and step.by_change and following is not None and following.joins
        if joined and following is not None:
            transitions += following.sent.transitions
        expected = replace(step.sent, sequence=sequence, transitions=transitions, furthest=furthest(transitions))
        if found != expected:
            return False
        place += 2 if joined else 1
    return place == len(steps)
