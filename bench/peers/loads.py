"""The files of events that all peers get. Event ids are UUIDs, as most callers make them."""

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.peers.task import Event, write_events
from bench.support import load
from bench.support.load import DENSE, SPARSE, Load
from evaluator.events import UsageEvent

EVENTS = 120_000  # of a round; a fast peer ends earlier than a slow one
WARM_UP_EVENTS = 30_000
RATE = 200  # events a second of the paced step
CROSSINGS = 25  # events a second that reach a threshold, each of another customer
PACE_SECONDS = 6.0
CUSTOMERS = 500
KINDS = (DENSE, SPARSE)

_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Loads:
    """Paths of files. first: an event of each customer; by kind of traffic, as warm and measured."""

    first: dict[str, str]
    warm: dict[str, str]
    measured: dict[str, str]
    paced: str
    killed: Sequence[Event]


def write(folder: Path) -> Loads:
    """Writes the files into a folder."""
    now = load.now()

    def file(name: str, events: Iterable[Event]) -> str:
        path = folder / f"{name}.events"
        write_events(path, [*events])
        return str(path)

    def of_kinds(name: str, events: int) -> dict[str, str]:
        return {
            kind.name: file(
                f"{name}-{kind.name}", map(plain, Load(name, kind.gauges, events, now, random_ids=True).make())
            )
            for kind in KINDS
        }

    return Loads(
        first={
            kind.name: file(f"first-{kind.name}", map(plain, load.first_events(kind.gauges, now))) for kind in KINDS
        },
        warm=of_kinds("warm", WARM_UP_EVENTS),
        measured=of_kinds("measured", EVENTS),
        paced=file("paced", paced(now)),
        killed=units(Load("killed", CUSTOMERS, EVENTS, now, random_ids=True)),
    )


def plain(event: UsageEvent) -> Event:
    """The event as the peers' scripts read it."""
    return Event(
        event.event_id, event.customer_id, int(event.quantity), (event.event_time - _EPOCH) // _MICROSECOND, 0.0
    )


def units(events: Load) -> list[Event]:
    """The events with a quantity of 1, so that a sum is a number of events."""
    return [plain(event)._replace(quantity=1) for event in events.make()]


def paced(start: datetime) -> list[Event]:
    """Single events at random times. Some reach a threshold: their quantity is the step of the recurring alert."""
    draw = random.Random("paced")
    times = itertools.accumulate(draw.expovariate(RATE) for _ in itertools.count())
    every = RATE // CROSSINGS
    events = []
    for number, due in enumerate(itertools.takewhile(lambda time: time < PACE_SECONDS, times)):
        reaches = number % every == 0
        customer = number // every if reaches else draw.randrange(CUSTOMERS)
        time = (start - _EPOCH) // _MICROSECOND + round(1e6 * due)
        quantity = load.STEP if reaches else 1
        events.append(Event(f"paced-{number:05d}", load.customer(customer), quantity, time, due))
    return events
