"""The usage writer against a real server: what it sends is counted once, and each event gets its own answer."""

import asyncio
import concurrent.futures
import os
from decimal import Decimal
from pathlib import Path

import pytest

from runtime.configuration import Configuration
from store.postgres.database import Database
from tests.support.clients.scripted import Cable
from tests.support.clients.server import Server, server_with_organization
from tests.support.clients.usage import CUSTOMER, METRIC, counted, event, events, until, watched
from tests.support.databases import NOON
from tests.support.server.running import running
from tests.support.server.sharing import StandingClock
from tidemark_client import (
    AlreadyExists,
    AsyncClient,
    Client,
    InvalidArgument,
    PermissionDenied,
    Spill,
    TidemarkError,
    Unauthenticated,
    WriterOptions,
    usage_event,
)
from tidemark_client.v1 import TRANSITION_KIND_REACHED, Transition, UsageEvent


async def test_every_event_is_counted_and_crossings_arrive(server: Server) -> None:
    crossings: list[Transition] = []
    async with watched(server, "100", "250") as client:
        options = WriterOptions(max_batch_events=7, on_crossing=crossings.append)
        async with client.usage_writer(options) as writer:
            await writer.send_all(events(250))
            await writer.flush()
            counts = writer.counts
            assert (counts.acknowledged, counts.duplicates, counts.rejected, counts.pending) == (250, 0, 0, 0)
        assert await counted(client) == 250
    assert [(one.level, one.event_id) for one in crossings] == [("100", "e-99"), ("250", "e-249")]
    assert all(one.kind == TRANSITION_KIND_REACHED for one in crossings)


async def test_a_bad_event_gets_its_error_and_hides_no_good_one(server: Server) -> None:
    rejected: list[tuple[str, TidemarkError]] = []
    async with watched(server) as client:
        options = WriterOptions(on_rejected=lambda event, error: rejected.append((event.event_id, error)))
        async with client.usage_writer(options) as writer:
            good = [await writer.submit(one) for one in events(3)]
            bad = await writer.submit(event("bad", quantity="much"))
            conflict = await writer.submit(event("e-0", quantity="2"))
            again = await writer.submit(event("e-1"))
            await writer.send(event("silent", customer_id=""))
            await writer.flush()
            outcome = await good[0]
            assert (outcome.accepted, outcome.duplicates) == (3, 1)
            assert await again is outcome
            with pytest.raises(InvalidArgument) as wrong:
                await bad
            assert [one.field.rpartition(".")[2] for one in wrong.value.violations] == ["quantity"]
            with pytest.raises(AlreadyExists) as other:
                await conflict
            assert other.value.reason == "EVENT_CONFLICT"
        assert await counted(client) == 3
    [(name, error)] = rejected
    assert (name, type(error)) == ("silent", InvalidArgument)
    assert (writer.counts.acknowledged, writer.counts.duplicates, writer.counts.rejected) == (4, 1, 3)


async def test_error_of_a_function_of_the_program_does_not_stop_the_writer(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(transition: Transition) -> None:
        raise ZeroDivisionError

    async with watched(server, "5") as client:
        async with client.usage_writer(WriterOptions(max_batch_events=1, on_crossing=fail)) as writer:
            await writer.send_all(events(10))
        assert await counted(client) == 10
    assert "raised an error" in caplog.text


async def test_cut_connections_lose_and_repeat_nothing(server: Server) -> None:
    interruptions: list[str] = []
    options = WriterOptions(max_batch_events=20, in_flight=4, on_interruption=interruptions.append)
    async with (
        watched(server) as client,
        Cable(int(server.address.rpartition(":")[2])) as cable,
        AsyncClient(f"127.0.0.1:{cable.port}", api_key=server.api_key) as cut,
        cut.usage_writer(options) as writer,
    ):
        for part in range(5):
            await writer.send_all(events(200, f"part{part}"))
            await until(lambda: writer.counts.acknowledged)
            cable.cut()
        await writer.flush(60)
        assert await counted(client) == 1_000
        assert writer.counts.acknowledged == 1_000
    assert interruptions


async def test_server_that_drains_and_one_that_follows_it_count_each_event_once(shared_pool: Database) -> None:
    clock = StandingClock(NOON)
    async with running(shared_pool, clock) as first:
        server = await server_with_organization(first, shared_pool)
        async with (
            AsyncClient(server.address, api_key=server.api_key) as client,
            client.usage_writer(WriterOptions(max_batch_events=10, in_flight=2)) as writer,
        ):
            await writer.send_all(events(100))
            await until(lambda: writer.counts.acknowledged)
            first.shutdown.request()
            await writer.send_all(events(100, "meanwhile"))
            await first.stopped
            configuration = Configuration(listen_port=first.port, propagation_delay=0.0)
            async with running(shared_pool, clock, configuration=configuration) as second:
                await writer.flush(60)
                assert writer.counts.acknowledged == 200
                async with watched(server) as watcher:
                    await until(lambda: second.port)
                    found = Decimal(0)
                    while found < 200:  # the new alert is evaluated on what is stored
                        found = await counted(watcher)
                    assert found == 200


async def test_key_that_may_not_send_fails_the_writer_and_its_futures(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncClient(server.address, api_key="tmk_unknown") as stranger:
        writer = stranger.usage_writer()
        future = await writer.submit(event())
        with pytest.raises(Unauthenticated):
            await future
        with pytest.raises(Unauthenticated):
            await writer.send(event())
        with pytest.raises(Unauthenticated):
            await writer.flush()
        with pytest.raises(Unauthenticated):
            await writer.close()
        with pytest.raises(Unauthenticated):
            async with stranger.usage_writer() as writer:
                await (await writer.submit(event()))

    def use_threads() -> None:
        with Client(server.address, api_key="tmk_unknown") as client, client.usage_writer() as writer:
            writer.submit(event()).result(timeout=30)

    with pytest.raises(Unauthenticated):
        await asyncio.to_thread(use_threads)
    assert "did not close well" not in caplog.text  # the program has the error already
    assert not issubclass(Unauthenticated, PermissionDenied)


async def test_spilled_usage_is_sent_after_a_restart(server: Server, tmp_path: Path) -> None:
    options = WriterOptions(
        max_batch_events=10, max_pending_events=40, spill=Spill(tmp_path), on_interruption=lambda sentence: None
    )
    async with watched(server) as client:
        async with AsyncClient("127.0.0.1:1") as away, away.usage_writer(options) as writer:
            await asyncio.wait_for(writer.send_all(events(300)), 60)  # more than memory may hold
            await writer.close(timeout=0)
            assert writer.counts.acknowledged == 0
        async with client.usage_writer(options) as writer:
            await writer.send_all(events(50, "new"))
            await writer.flush(60)
            assert (writer.counts.acknowledged, writer.counts.spilled, writer.counts.pending) == (350, 0, 0)
        assert await counted(client) == 350
    assert os.listdir(tmp_path) == ["lock"]


async def test_threads_share_a_writer(server: Server) -> None:
    def use() -> None:
        with (
            Client(server.address, api_key=server.api_key) as client,
            client.usage_writer(WriterOptions(max_batch_events=10, max_pending_events=30)) as writer,
        ):
            futures = [writer.submit(one) for one in events(20)]
            writer.send_all(events(500, "many"))
            bad = writer.submit(event("bad", quantity="much"))
            writer.flush(60)
            assert {future.result(60).accepted for future in futures} == {10}
            assert isinstance(bad.exception(60), InvalidArgument)
            counts = writer.counts
        assert (counts.acknowledged, counts.rejected, counts.pending) == (520, 1, 0)
        with pytest.raises(RuntimeError, match="closed"):
            writer.send(event())

    await asyncio.to_thread(use)


async def test_threads_send_at_the_same_time(server: Server) -> None:
    async with watched(server) as client:

        def use() -> int:
            with (
                Client(server.address, api_key=server.api_key) as threads,
                threads.usage_writer(WriterOptions(max_batch_events=50, max_pending_events=200)) as writer,
            ):
                with concurrent.futures.ThreadPoolExecutor(4) as pool:
                    for part in range(4):
                        pool.submit(writer.send_all, events(400, f"thread{part}"))
                writer.flush(60)
                return writer.counts.acknowledged

        assert await asyncio.to_thread(use) == 1_600
        assert await counted(client) == 1_600


def test_an_event_is_exact_and_complete() -> None:
    one = usage_event(CUSTOMER, METRIC, Decimal("1E+3"), event_time=NOON, properties={"region": "eu"})
    assert (one.quantity, one.properties["region"], one.event_time.ToDatetime()) == (
        "1000",
        "eu",
        NOON.replace(tzinfo=None),
    )
    assert one.event_id != usage_event(CUSTOMER, METRIC, 1).event_id
    with pytest.raises(TypeError, match="float"):
        usage_event(CUSTOMER, METRIC, 0.1)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(ValueError, match="time zone"):
        usage_event(CUSTOMER, METRIC, 1, event_time=NOON.replace(tzinfo=None))


async def test_event_without_id_and_time_gets_them_and_a_huge_one_is_refused() -> None:
    async with AsyncClient("127.0.0.1:1") as client:
        writer = client.usage_writer(WriterOptions(on_interruption=lambda sentence: None))
        bare = UsageEvent(customer_id=CUSTOMER, metric_id=METRIC, quantity="1")
        await writer.send(bare)
        assert bare.event_id
        assert bare.HasField("event_time")
        with pytest.raises(ValueError, match="larger than"):
            await writer.send(UsageEvent(event_id="e", customer_id="x" * (1 << 20)))
        with pytest.raises(TidemarkError, match="1 usage events are not acknowledged"):
            await writer.close(timeout=0)
        with pytest.raises(RuntimeError, match="closed"):
            await writer.send(event())
