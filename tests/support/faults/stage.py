"""What runs during a fault run: servers, notifiers, a database, callers, a follower, and a receiver of webhooks.

The callers, and the follower of the feed, reach the servers through proxies.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import psycopg

from cli.client.connection import Address
from generated.tidemark.v1.notification_pb2 import Notification
from generated.tidemark.v1.usage_pb2 import UsageEvent
from tests.support.faults.clock import SteppedClock
from tests.support.faults.proxy import Proxy, proxied
from tests.support.faults.reserving import Reserver, put_limit
from tests.support.notifier.receiver import Receiver, running_receiver
from tests.support.processes import results
from tests.support.processes.following import following
from tests.support.processes.programs import POLLING_INTERVAL, SETTINGS, Program, Programs
from tests.support.processes.results import ALERTS, SEATS
from tests.support.processes.traffic import Client, usage
from tests.support.waiting import within
from tests.support.webhooks.endpoints import create_endpoint
from tidemark_client.usage.batches import Batch

CLIENTS = 2  # of each server
PAUSE = 0.3  # seconds between two batches of a client
BEHIND = timedelta(hours=3)  # of the events, so that a clock that is set back does not make them events of the future
# Leases of a notifier that died end soon, and so do requests of a receiver that does not answer.
SHORT = {
    "TIDEMARK_WEBHOOK_TIMEOUT_SECONDS": "0.5",
    "TIDEMARK_HEARTBEAT_SECONDS": "1",
    "TIDEMARK_POOL_SIZE": "8",
}


class PacedClient(Client):
    """A client that pauses between its batches, so that a long run stays small."""

    async def _numbered(self, batches: Iterable[list[UsageEvent]]) -> AsyncIterator[Batch]:
        async for batch in super()._numbered(batches):
            yield batch
            await asyncio.sleep(PAUSE)


class Database(Protocol):
    """A database on one or several servers, whose faults a run injects."""

    recovery_limit: float
    """Seconds in which all goes on after a fault."""

    @property
    def url(self) -> str:
        """That of the programs, through proxies."""

    @property
    def own_url(self) -> str:
        """That of the tests, beside the proxies."""

    @property
    def settings(self) -> Mapping[str, str]:
        """More of the environment of the programs."""


D = TypeVar("D", bound=Database)


@dataclass
class Stage(Generic[D]):
    """All of it. through: the proxy in front of each server. secret: of the endpoint. feed: what the follower got."""

    database: D
    servers: dict[str, Program]
    notifiers: list[Program]
    through: list[Proxy]
    clock: SteppedClock
    receiver: Receiver
    randomness: random.Random
    secret: str = ""
    clients: list[PacedClient] = field(default_factory=list)
    reservers: list[Reserver] = field(default_factory=list)
    feed: list[Notification] = field(default_factory=list)

    async def recovered(self) -> None:
        """Waits until every client gets acknowledgements again, and each notification so far has arrived."""
        async with within("recovery", self.database.recovery_limit):
            goals = [len(client.sent) + 1 for client in self.clients]
            rounds = [one.rounds + 1 for one in self.reservers]
            await _until(lambda: all(one.acknowledged >= goal for one, goal in zip(self.clients, goals, strict=True)))
            await _until(lambda: all(one.rounds >= goal for one, goal in zip(self.reservers, rounds, strict=True)))
            written = (await self.written()).keys()
            await _until(lambda: written <= set(self.receiver.ids()))

    async def written(self) -> dict[str, str]:
        """The notifications that are stored, asked until the database answers."""
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                return await results.notifications(self.database.own_url)
            await asyncio.sleep(POLLING_INTERVAL)


async def _until(happened: Callable[[], bool]) -> None:
    while not happened():  # noqa: ASYNC110 (what is waited for happens in another process)
        await asyncio.sleep(POLLING_INTERVAL)


@asynccontextmanager
async def stage(
    folder: Path, randomness: random.Random, database: AbstractAsyncContextManager[D]
) -> AsyncIterator[Stage[D]]:
    """Everything but the clients runs inside the block, on a migrated database."""
    async with contextlib.AsyncExitStack() as exits:
        opened = await exits.enter_async_context(database)
        receiver = await exits.enter_async_context(running_receiver())
        clock = SteppedClock(folder / "clock")
        programs = Programs(
            {**SETTINGS, **SHORT, **opened.settings, "TIDEMARK_DATABASE_URL": opened.url}, folder, exits
        )
        programs.variables.update(clock.variables)
        workers, single, *notifiers = await asyncio.gather(
            programs.serve("workers", workers=2),
            programs.serve("single"),
            programs.notify("notifier-1"),
            programs.notify("notifier-2"),
        )
        through = [
            await exits.enter_async_context(proxied(int(server.address.server.rpartition(":")[2])))
            for server in (workers, single)
        ]
        await results.create(workers.address, *ALERTS, SEATS)
        await put_limit(workers.address, of_batches=True)
        one = Stage(opened, {"workers": workers, "single": single}, notifiers, through, clock, receiver, randomness)
        async with single.address.channel() as channel:
            one.secret = await create_endpoint(channel, receiver.url)
        one.feed = await exits.enter_async_context(following(Address(f"127.0.0.1:{through[0].port}")))
        yield one


@asynccontextmanager
async def streaming(stage: Stage[D]) -> AsyncIterator[None]:
    """Clients stream for as long as the block lasts; at its end everything is acknowledged."""
    now = datetime.now(UTC) - BEHIND
    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS * len(stage.through)):
            proxy = stage.through[number % len(stage.through)]
            client = PacedClient(f"client-{number}", Address(f"127.0.0.1:{proxy.port}"))
            stage.clients.append(client)
            group.create_task(client.send(usage(client.name, now)))
        for number, proxy in enumerate(stage.through):
            reserver = Reserver(f"reserver-{number}", Address(f"127.0.0.1:{proxy.port}"), now)
            stage.reservers.append(reserver)
            group.create_task(reserver.run())
        yield
        for client in stage.clients:
            client.enough = True
        for reserver in stage.reservers:
            reserver.enough = True
