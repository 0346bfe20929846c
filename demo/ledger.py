"""The demo's books: what was sent and has to happen on one side, what was answered and arrived on the other."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from cli.client.batches import Batch
from cli.client.errors import status_reason
from demo.expectation import ACCEPTED, CONFLICT, DUPLICATE, Expectation
from demo.receiver import Receiver
from demo.told import crossing_of_transition, gauge_identity
from demo.traffic import Sent
from demo.world import Crossing, Event
from generated.tidemark.v1.alert_service_pb2 import EvaluateUsageResponse

REASON_PREFIX = "ERROR_REASON_"

# Customer, subscription, what is measured, group and period's start: a gauge, whatever alerts watch it.
GaugeIdentity = tuple[str, str, str, tuple[tuple[str, str], ...], datetime]


@dataclass(frozen=True)
class Difference:
    """Where the two sides differ: crossings that are missing, and ones that nobody expected."""

    missing: list[Crossing]
    surplus: list[Crossing]

    def __bool__(self) -> bool:
        return bool(self.missing or self.surplus)

    @classmethod
    def between(cls, expected: "Counter[Crossing]", found: "Counter[Crossing]") -> "Difference":
        """The difference of two collections, each crossing as often as it is there."""
        return cls(sorted((expected - found).elements()), sorted((found - expected).elements()))


@dataclass
class Ledger:
    """expected, answered: events by what became of them. acknowledged: crossings that answers named, of which `told`
    were said to be sent on. values: the last value of each gauge that an answer showed."""

    expectation: Expectation
    sent: int = 0
    expected: "Counter[str]" = field(default_factory=Counter)
    answered: "Counter[str]" = field(default_factory=Counter)
    acknowledged: "Counter[Crossing]" = field(default_factory=Counter)
    told: "Counter[Crossing]" = field(default_factory=Counter)
    values: dict[GaugeIdentity, Decimal] = field(default_factory=dict)
    times: dict[str, datetime] = field(default_factory=dict)

    def sending(self, sent: Sent) -> Event:
        """Books an event that is about to be sent, and returns it."""
        self.sent += 1
        if sent.reason and sent.reason != "EVENT_CONFLICT":
            self.expected[sent.reason] += 1
            return sent.event
        verdict = self.expectation.feed(sent.event)
        self.expected["EVENT_CONFLICT" if verdict == CONFLICT else verdict] += 1
        if verdict == ACCEPTED:
            self.times[sent.event.event_id] = sent.event.time
        return sent.event

    def acknowledge(self, batch: Batch, response: EvaluateUsageResponse) -> None:
        """Books an answer."""
        if response.accepted:
            self.answered[ACCEPTED] += response.accepted
        if response.duplicates:
            self.answered[DUPLICATE] += response.duplicates
        if response.HasField("omitted"):
            raise ValueError(f"an answer left something out: {response.omitted}")
        for rejection in response.rejected:
            self.answered[status_reason(rejection.status).removeprefix(REASON_PREFIX)] += 1
        for transition in response.transitions:
            crossing = crossing_of_transition(transition)
            self.acknowledged[crossing] += 1
            if transition.notified:
                self.told[crossing] += 1
        for gauge in response.gauges:
            self.values[gauge_identity(gauge)] = Decimal(gauge.value)

    def rejected(self) -> int:
        """How many events were rejected."""
        return sum(count for what, count in self.answered.items() if what not in (ACCEPTED, DUPLICATE))

    def answers_differ(self) -> bool:
        """Whether any event was treated otherwise than it has to be."""
        return self.expected != self.answered

    def acknowledgement_difference(self) -> Difference:
        """Expected and acknowledged crossings. What an alert's creation found is in no answer, it came with none."""
        expected = Counter(crossing for crossing in self.expectation.crossings if crossing.event_id)
        found = Counter({crossing: count for crossing, count in self.acknowledged.items() if crossing.event_id})
        return Difference.between(expected, found)

    def promise_difference(self) -> Difference:
        """Crossings that have to be sent on, and those that answers said are."""
        expected = Counter(crossing for crossing in self.expectation.told if crossing.event_id)
        found = Counter({crossing: count for crossing, count in self.told.items() if crossing.event_id})
        return Difference.between(expected, found)

    def webhook_difference(self, receiver: Receiver) -> Difference:
        """Crossings that have to be sent on, and those that arrived."""
        found = Counter(crossing for received in receiver.received.values() for crossing in received.crossings)
        return Difference.between(Counter(self.expectation.told), found)


def sequence_faults(receiver: Receiver) -> list[str]:
    """Gauges whose notifications are not numbered 1, 2, 3 … for their alert."""
    numbers: dict[tuple[object, ...], list[int]] = {}
    for received in receiver.received.values():
        numbers.setdefault(received.crossings[0][:6], []).append(received.sequence)
    return [
        f"the notifications of {key[0]!r} for {key[1]} are numbered {sorted(found)}"
        for key, found in numbers.items()
        if sorted(found) != list(range(1, len(found) + 1))
    ]
