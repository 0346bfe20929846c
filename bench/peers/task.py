"""The task of a peer's script: JSON on its standard input. Only the standard library, for each environment."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

ACKNOWLEDGED = "acknowledged"  # a line of output: this, the number of the first event, how many


class Event(NamedTuple):
    """One use of the metric. time: microseconds since 1970. due: seconds after the start of a paced step."""

    event_id: str
    customer_id: str
    quantity: int
    time: int
    due: float


@dataclass(frozen=True)
class Step:
    """A part of a task: what is done with the events of a file.

    kind: `send` counts all events; `rate` measures how fast, at most `seconds` long; `pace` sends each event alone
    when it is due, and measures how long it takes until a reached threshold is known; `acknowledge` prints what is
    acknowledged; `totals` prints the sum of each customer, and needs no events.
    """

    kind: str
    events: str = ""  # path
    seconds: float = 0.0


@dataclass(frozen=True)
class Task:
    """store: the URL or the address of what the peer counts in. database_url: of Tidemark, whose store is a server.

    thresholds: amounts, each of an alert of all customers. recurring: another alert has a threshold at each multiple.
    stored: events that the peer puts into its store before anything else, if it is empty.
    """

    store: str
    database_url: str
    thresholds: Sequence[int]
    recurring: int
    stored: int
    steps: Sequence[Step]


def read_task() -> Task:
    """Reads the task from standard input."""
    found: dict[str, Any] = json.loads(sys.stdin.readline())
    return Task(**{**found, "steps": [Step(**step) for step in found["steps"]]})


def write_events(path: Path, events: Sequence[Event]) -> None:
    """Writes a file of events, one a line."""
    path.write_text("".join("\t".join(map(str, event)) + "\n" for event in events))


def read_events(path: str) -> list[Event]:
    """The events of a file."""
    return [_event(line.rstrip("\n").split("\t")) for line in Path(path).read_text().splitlines()]


def _event(fields: Sequence[str]) -> Event:
    event_id, customer_id, quantity, time, due = fields
    return Event(event_id, customer_id, int(quantity), int(time), float(due))


def batches(events: Sequence[Event], size: int) -> Iterator[Sequence[Event]]:
    """The events in order, so many in each part."""
    for start in range(0, len(events), size):
        yield events[start : start + size]
