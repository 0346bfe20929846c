"""The demo's comparison: what was sent and must happen on one side, what was answered and arrived on the other."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from cli.client.errors import status_reason
from demo.definitions import Event
from demo.expectation import ACCEPTED, CONFLICT, DUPLICATE, Expectation
from demo.receiver import VerifiedWebhooks
from demo.traffic import Sent
from demo.transitions import GaugeIdentity, TransitionKey, gauge_identity, transition_of_answer
from generated.tidemark.v1.usage_pb2 import UsageOutcome
from tidemark_client.usage.batches import Batch

REASON_PREFIX = "ERROR_REASON_"


@dataclass(frozen=True)
class Difference:
    """How the two sides differ: transitions that are missing, and ones that are not expected."""

    missing: list[TransitionKey]
    surplus: list[TransitionKey]

    def __bool__(self) -> bool:
        return bool(self.missing or self.surplus)

    @classmethod
    def between(cls, expected: "Counter[TransitionKey]", found: "Counter[TransitionKey]") -> "Difference":
        """The difference of two collections of transitions."""
        return cls(sorted((expected - found).elements()), sorted((found - expected).elements()))


@dataclass
class Comparison:
    """Both sides.

    expected, answered: the numbers of events by their verdicts. acknowledged: the transitions in answers; promised:
    those of them that the answers said are notified. values: the last value of each gauge in an answer. times: of
    accepted events.
    """

    expectation: Expectation
    sent: int = 0
    expected: "Counter[str]" = field(default_factory=Counter)
    answered: "Counter[str]" = field(default_factory=Counter)
    acknowledged: "Counter[TransitionKey]" = field(default_factory=Counter)
    promised: "Counter[TransitionKey]" = field(default_factory=Counter)
    values: dict[GaugeIdentity, Decimal] = field(default_factory=dict)
    times: dict[str, datetime] = field(default_factory=dict)

    def sending(self, sent: Sent) -> Event:
        """Adds an event that is about to be sent, and returns it."""
        self.sent += 1
        if sent.reason and sent.reason != "EVENT_CONFLICT":
            self.expected[sent.reason] += 1
            return sent.event
        verdict = self.expectation.send(sent.event)
        self.expected["EVENT_CONFLICT" if verdict == CONFLICT else verdict] += 1
        if verdict == ACCEPTED:
            self.times[sent.event.event_id] = sent.event.time
        return sent.event

    def acknowledge(self, batch: Batch, outcome: UsageOutcome) -> None:
        """Adds an answer."""
        if outcome.accepted:
            self.answered[ACCEPTED] += outcome.accepted
        if outcome.duplicates:
            self.answered[DUPLICATE] += outcome.duplicates
        if outcome.HasField("omitted"):
            raise ValueError(f"an answer left something out: {outcome.omitted}")
        for rejection in outcome.rejected:
            self.answered[status_reason(rejection.status).removeprefix(REASON_PREFIX)] += 1
        for transition in outcome.transitions:
            key = transition_of_answer(transition)
            self.acknowledged[key] += 1
            if transition.notified:
                self.promised[key] += 1
        for gauge in outcome.gauges:
            self.values[gauge_identity(gauge)] = Decimal(gauge.value)

    def rejected(self) -> int:
        """How many events were rejected."""
        return sum(count for what, count in self.answered.items() if what not in (ACCEPTED, DUPLICATE))

    def answers_differ(self) -> bool:
        """Whether any event got another answer than expected."""
        return self.expected != self.answered

    def acknowledgement_difference(self) -> Difference:
        """Expected and acknowledged transitions; those that no event led to are in no answer."""
        expected = Counter(transition for transition in self.expectation.transitions if transition.event_id)
        found = Counter({transition: count for transition, count in self.acknowledged.items() if transition.event_id})
        return Difference.between(expected, found)

    def promise_difference(self) -> Difference:
        """Transitions that must be notified, and those of which answers said so."""
        expected = Counter(transition for transition in self.expectation.notified if transition.event_id)
        found = Counter({transition: count for transition, count in self.promised.items() if transition.event_id})
        return Difference.between(expected, found)

    def webhook_difference(self, webhooks: VerifiedWebhooks) -> Difference:
        """Transitions that must be notified, and those that arrived."""
        found = Counter(transition for received in webhooks.received.values() for transition in received.transitions)
        return Difference.between(Counter(self.expectation.notified), found)


def sequence_faults(webhooks: VerifiedWebhooks) -> list[str]:
    """The gauges whose notifications are not numbered 1, 2, 3 … for their alert, in words."""
    numbers: dict[tuple[object, ...], list[int]] = {}
    for received in webhooks.received.values():
        numbers.setdefault(received.transitions[0][:6], []).append(received.sequence)
    return [
        f"the notifications of {key[0]!r} for {key[1]} are numbered {sorted(found)}"
        for key, found in numbers.items()
        if sorted(found) != list(range(1, len(found) + 1))
    ]
