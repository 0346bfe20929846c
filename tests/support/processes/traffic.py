"""Usage as callers stream it: made-up events without end, and clients that send again what was not acknowledged."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from cli.client.connection import Address
from generated.tidemark.v1.transition_pb2 import Transition
from generated.tidemark.v1.usage_pb2 import UsageEvent, UsageOutcome
from tests.support.processes.programs import DEADLINE, until
from tidemark_client.usage.batches import Batch
from tidemark_client.usage.stream import UsageStream

CUSTOMERS = tuple(f"customer-{number}" for number in range(12))
REGIONS = ("ap", "eu", "us")
LABELS = ("model", "team", "tier")  # what events are grouped by besides; late ones are not
USERS = 40  # distinct ones of each customer
BATCH = 25  # events
# Endless clients send several batches at once and then pause. Without pauses most of the time of a test would go into
# usage that is sent while the test waits for a process, and into the model's account of it.
BURST = 4  # batches
PAUSE = 0.3  # seconds
LATE = timedelta(days=20)  # the lateness of late events; often the period before, and always within its grace


def usage(name: str, now: datetime) -> Iterator[list[UsageEvent]]:
    """Batches without end, the same for the same name; no two names have an event in common."""
    rng = random.Random(name)
    number = 0
    while True:
        batch = []
        for _ in range(BATCH):
            number += 1
            batch.append(_event(rng, f"{name}/{number}", now))
        yield batch


def _event(rng: random.Random, event_id: str, now: datetime) -> UsageEvent:
    event = UsageEvent(event_id=event_id, customer_id=rng.choice(CUSTOMERS))
    kind = rng.random()
    if kind < 0.1:
        event.metric_id, event.quantity = "users", "1"
        event.properties["user"] = f"user-{rng.randrange(USERS)}"
    elif kind < 0.2:
        event.metric_id, event.quantity = "seats", str(rng.randint(-6, 6))
    else:
        # Of different lengths, so that a float somewhere on the way would show in the sums.
        event.metric_id, event.quantity = "calls", f"{rng.randrange(1, 400) / 100:.2f}"
        event.cost, event.currency = f"0.{rng.randrange(1, 10**9):012d}", "USD"
        event.properties["region"] = rng.choice(REGIONS)
    if rng.random() < 0.1:
        event.event_time.FromDatetime(now - LATE)
    else:
        event.event_time.FromDatetime(now)
        if event.metric_id == "calls":
            event.properties.update({label: rng.choice(("first", "second")) for label in LABELS})
    return event


class Client:
    """One caller with one stream at a time. It streams until its batches end, or `enough` is set.

    sent: every event once, however often it had to be sent. accepted, duplicates, transitions: what the
    acknowledgements said. acknowledged: events. interruptions: why streams broke off, in words.
    """

    def __init__(self, name: str, address: Address, pause: float = 0) -> None:
        """pause: seconds between two bursts."""
        self.sent: list[UsageEvent] = []
        self.acknowledged = 0
        self.accepted = 0
        self.duplicates = 0
        self.transitions: list[Transition] = []
        self.interruptions: list[str] = []
        self.enough = False
        self.name = name
        self._address = address
        self._pause = pause

    async def send(self, batches: Iterable[list[UsageEvent]]) -> None:
        """Sends the batches; returns when all of them are acknowledged."""
        async with self._address.channel() as channel:
            stream = UsageStream(channel, patience=DEADLINE, on_interruption=self.interruptions.append)
            await stream.send(self._numbered(batches), self._acknowledge)

    async def _numbered(self, batches: Iterable[list[UsageEvent]]) -> AsyncIterator[Batch]:
        for number, events in enumerate(batches):
            if self.enough:
                return
            self.sent += events
            yield Batch(f"{self.name}/{number}", events)
            if self._pause and number % BURST == BURST - 1:
                await asyncio.sleep(self._pause)

    def _acknowledge(self, batch: Batch, outcome: UsageOutcome) -> None:
        assert not outcome.rejected, outcome
        assert not outcome.HasField("omitted"), outcome.omitted
        assert outcome.accepted + outcome.duplicates == len(batch.events)
        self.acknowledged += len(batch.events)
        self.accepted += outcome.accepted
        self.duplicates += outcome.duplicates
        self.transitions += outcome.transitions


@asynccontextmanager
async def streaming(
    address: Address, clients: int, now: datetime, prefix: str = "client"
) -> AsyncIterator[list[Client]]:
    """Clients that stream for as long as the block lasts; at its end everything is acknowledged.

    prefix: of their names. Clients with the same name send the same events.
    """
    streaming = [Client(f"{prefix}-{number}", address, PAUSE) for number in range(clients)]
    async with asyncio.TaskGroup() as group:
        for client in streaming:
            group.create_task(client.send(usage(client.name, now)))
        yield streaming
        for client in streaming:
            client.enough = True


async def acknowledged(clients: Sequence[Client], batches: int) -> None:
    """Waits until every client has had more than so many batches acknowledged in all."""
    await until(lambda: all(client.acknowledged > batches * BATCH for client in clients))


async def progress(clients: Sequence[Client], batches: int = 10) -> None:
    """Waits until every client has had so many more batches acknowledged."""
    goals = [client.acknowledged + batches * BATCH for client in clients]
    await until(lambda: all(client.acknowledged >= goal for client, goal in zip(clients, goals, strict=True)))
