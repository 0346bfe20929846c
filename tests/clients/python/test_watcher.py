"""The watcher against a real server: each notification once, and again only if the program had not done with it."""

import asyncio
import threading
from decimal import Decimal
from pathlib import Path

import pytest

from tests.support.clients.scripted import Cable
from tests.support.clients.server import Server
from tests.support.clients.usage import LIMIT, event, until, watched
from tidemark_client import (
    AsyncClient,
    Client,
    FileTokens,
    InvalidArgument,
    MemoryTokens,
    WatchOptions,
    WebhookEvent,
    WriterOptions,
)
from tidemark_client.v1 import EVENT_TYPE_ALERT_REACHED, Notification

LEVELS = ("1", "2", "3", "4", "5")


async def reach(client: AsyncClient, count: int, prefix: str = "e") -> None:
    """Uses one after the other, each of which reaches a threshold in a commit of its own."""
    async with client.usage_writer(WriterOptions(max_batch_events=1, in_flight=1)) as writer:
        for number in range(count):
            await writer.send(event(f"{prefix}{number}"))
            await writer.flush(LIMIT)


def levels(notifications: list[Notification]) -> list[str]:
    return [one.evaluation.transitions[0].level for one in notifications]


class Stopped(Exception):
    """The program of a test stops here."""


async def begin(tokens: MemoryTokens | FileTokens, client: AsyncClient) -> None:
    """Keeps the present position, so that nothing after it is missed."""
    async for position in client.watcher(WatchOptions(tokens=tokens)).positions():
        tokens.save(position.resume_token)
        return


async def test_a_program_that_stops_in_a_notification_gets_it_again(server: Server, tmp_path: Path) -> None:
    tokens = FileTokens(tmp_path / "token")
    done: list[Notification] = []
    stops = {"3"}

    async def handle(notification: Notification) -> None:
        level = levels([notification])[0]
        if level in stops:
            stops.remove(level)
            raise Stopped
        done.append(notification)
        if level == "5":
            raise Stopped

    async with watched(server, *LEVELS) as client:
        await begin(tokens, client)
        await reach(client, 5)
        with pytest.raises(Stopped):
            await asyncio.wait_for(client.watcher(WatchOptions(tokens=tokens)).run(handle), LIMIT)
        assert levels(done) == ["1", "2"]
        async with AsyncClient(server.address, api_key=server.api_key) as restarted:
            again = restarted.watcher(WatchOptions(tokens=FileTokens(tmp_path / "token")))
            with pytest.raises(Stopped):
                await asyncio.wait_for(again.run(handle), LIMIT)
        assert levels(done) == list(LEVELS)
    assert len({one.notification_id for one in done}) == 5


async def test_filters_choose(server: Server) -> None:
    tokens = MemoryTokens()
    async with watched(server, *LEVELS) as client:
        await begin(tokens, client)
        await reach(client, 1)
        async with client.usage_writer() as writer:
            await writer.send(event("other", customer_id="globex"))
        chosen = WatchOptions(customer_ids=["globex"], event_types=[EVENT_TYPE_ALERT_REACHED], tokens=MemoryTokens())
        # A token belongs to its filters, so these begin at a time.
        with pytest.raises(InvalidArgument) as wrong:
            async for _ in client.watcher(WatchOptions(customer_ids=["globex"], tokens=tokens)):
                pass
        assert wrong.value.reason == "RESUME_TOKEN_INVALID"
        seen: list[Notification] = []

        async def watch() -> None:
            async for notification in client.watcher(chosen):
                seen.append(notification)
                return

        task = asyncio.create_task(watch())
        await asyncio.sleep(0)
        while not seen:
            async with client.usage_writer() as writer:
                await writer.send(event(customer_id="globex"))
                await writer.send(event())
            await asyncio.wait([task], timeout=0.05)
        assert {one.customer_id for one in seen} == {"globex"}


async def test_cut_connections_miss_and_repeat_nothing(server: Server) -> None:
    seen: list[Notification] = []
    interruptions: list[str] = []
    async with (
        watched(server, *LEVELS) as client,
        Cable(int(server.address.rpartition(":")[2])) as cable,
        AsyncClient(f"127.0.0.1:{cable.port}", api_key=server.api_key) as cut,
    ):
        tokens = MemoryTokens()
        await begin(tokens, client)
        options = WatchOptions(tokens=tokens, on_interruption=interruptions.append)

        async def watch() -> None:
            async for notification in cut.watcher(options):
                seen.append(notification)
                if len(seen) == 5:
                    return

        task = asyncio.create_task(watch())
        for number in range(5):
            await reach(client, 1, f"e{number}-")
            await until(lambda: len(seen) > number)  # noqa: B023 (it is called within this turn)
            cable.cut()
        await asyncio.wait_for(task, LIMIT)
    assert levels(seen) == list(LEVELS)
    assert interruptions


async def test_body_of_a_notification_is_a_typed_event(server: Server) -> None:
    tokens = MemoryTokens()
    async with watched(server, "2") as client:
        await begin(tokens, client)
        async with client.usage_writer() as writer:
            await writer.send(event("first", "5"))
        async for notification in client.watcher(WatchOptions(tokens=tokens)):
            found = WebhookEvent.parse(notification.notification_id, notification.body.encode())
            break
    assert (found.id, found.type) == (notification.notification_id, "alert.reached")
    assert (found.customer_id, found.alert_id) == (notification.customer_id, notification.alert_id)
    assert (found.value, found.previous_value, found.sequence) == (Decimal(5), Decimal(0), 1)
    [transition] = found.transitions
    assert (transition.kind, transition.level, transition.value) == ("REACHED", Decimal(2), Decimal(5))
    assert not found.is_test


async def test_closing_ends_the_iteration_of_another_thread(server: Server) -> None:
    begun = threading.Event()
    seen: list[Notification] = []

    class Begun(MemoryTokens):
        def save(self, token: str) -> None:
            super().save(token)
            begun.set()

    def watch(watcher_of: Client) -> None:
        with watcher_of.watcher(WatchOptions(tokens=Begun())) as watcher:

            def close() -> None:
                begun.wait(LIMIT)
                watcher.close()

            closing = threading.Thread(target=close)
            closing.start()
            seen.extend(watcher)
            closing.join()

    with Client(server.address, api_key=server.api_key) as client:
        await asyncio.wait_for(asyncio.to_thread(watch, client), LIMIT)
    assert seen == []


def test_file_of_a_token_is_replaced_as_a_whole(tmp_path: Path) -> None:
    tokens = FileTokens(tmp_path / "token")
    assert tokens.load() == ""
    for token in ("one", "two"):
        tokens.save(token)
        assert tokens.load() == token
    assert [path.name for path in tmp_path.iterdir()] == ["token"]
    with pytest.raises(FileNotFoundError):
        FileTokens(tmp_path / "missing" / "token").save("three")
