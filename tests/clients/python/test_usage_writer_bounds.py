"""The usage writer against a scripted server: bounds, events that cannot be recorded, and files after a crash."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from tests.support.clients.scripted import Context, Requests, Scripted, answer, answers_all
from tests.support.clients.usage import event, events, until
from tidemark_client import AsyncClient, ConnectionLost, Internal, Spill, TidemarkError, WriterOptions
from tidemark_client.imported.google.rpc import status_pb2
from tidemark_client.usage import batches, lane
from tidemark_client.usage.batches import AnswerOptions
from tidemark_client.v1 import (
    EvaluateUsageRequest,
    EvaluateUsageResponse,
    Rejection,
    UsageBatch,
    UsageEvent,
    UsageOutcome,
)


def quiet(**options: object) -> WriterOptions:
    return WriterOptions(on_interruption=lambda sentence: None, **options)  # type: ignore[arg-type]  # of the test


class Held:
    """A server that answers only while its gate is open. seen: the ids of the events that came."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.seen: list[str] = []

    async def __call__(self, requests: Requests, context: Context) -> AsyncIterator[EvaluateUsageResponse]:
        async for request in requests:
            self.seen += [one.event_id for one in request.batch.events]
            await self.gate.wait()
            yield answer(request)


async def test_a_slow_server_makes_the_caller_wait_with_bounded_memory() -> None:
    held = Held()
    async with Scripted(held) as server, AsyncClient(f"127.0.0.1:{server.port}") as client:
        options = quiet(max_batch_events=5, in_flight=2, max_pending_events=20)
        async with client.usage_writer(options) as writer:
            sending = asyncio.create_task(writer.send_all(events(200)))
            await until(lambda: writer.counts.pending >= 20)
            await asyncio.sleep(0.05)
            assert not sending.done()
            assert writer.counts.pending <= 25
            held.gate.set()
            await sending
            await writer.flush(60)
            assert writer.counts.acknowledged == 200
    assert held.seen == [f"e-{number}" for number in range(200)]


async def test_memory_is_bounded_in_bytes_too() -> None:
    held = Held()
    async with Scripted(held) as server, AsyncClient(f"127.0.0.1:{server.port}") as client:
        options = quiet(max_batch_bytes=4_000, in_flight=2, max_pending_bytes=10_000)
        async with client.usage_writer(options) as writer:
            sending = asyncio.create_task(writer.send_all(event(f"{number}-" + "x" * 900) for number in range(100)))
            await until(lambda: not writer.ledger.is_open)
            assert 8 <= writer.counts.pending <= 16
            held.gate.set()
            await sending
        assert writer.counts.acknowledged == 100


async def test_an_event_that_breaks_the_server_is_rejected_alone() -> None:
    async def breaks(requests: Requests, context: Context) -> AsyncIterator[EvaluateUsageResponse]:
        async for request in requests:
            if any(one.event_id == "e-13" for one in request.batch.events):
                await context.abort(grpc.StatusCode.INTERNAL, "it failed")
            yield answer(request)

    async with Scripted(breaks) as server, AsyncClient(f"127.0.0.1:{server.port}") as client:
        async with client.usage_writer(quiet(max_batch_events=10)) as writer:
            futures = [await writer.submit(one) for one in events(40)]
            await writer.flush(60)
        results = await asyncio.gather(*futures, return_exceptions=True)
    assert isinstance(results[13], Internal)
    assert [at for at, one in enumerate(results) if isinstance(one, BaseException)] == [13]
    assert (writer.counts.acknowledged, writer.counts.rejected) == (39, 1)


async def test_an_event_that_the_server_could_not_record_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "RETRY_PAUSE", 0.0)
    tries: dict[str, int] = {}

    async def forgets(requests: Requests, context: Context) -> AsyncIterator[EvaluateUsageResponse]:
        async for request in requests:
            outcome = UsageOutcome(batch_id=request.batch.batch_id)
            for index, one in enumerate(request.batch.events):
                tries[one.event_id] = tries.get(one.event_id, 0) + 1
                if one.event_id == "never" or (one.event_id == "late" and tries["late"] < 3):
                    status = status_pb2.Status(code=grpc.StatusCode.INTERNAL.value[0], message="not recorded")
                    outcome.rejected.append(Rejection(index=index, status=status))
                else:
                    outcome.accepted += 1
            yield EvaluateUsageResponse(outcome=outcome)

    async with (
        Scripted(forgets) as server,
        AsyncClient(f"127.0.0.1:{server.port}") as client,
        client.usage_writer(quiet()) as writer,
    ):
        late, never, good = [await writer.submit(event(name)) for name in ("late", "never", "good")]
        await writer.flush(60)
        assert (await late).accepted == 1
        assert (await good).accepted == 1
        with pytest.raises(Internal, match="not recorded"):
            await never
    assert tries == {"late": 3, "never": 3, "good": 1}


async def test_files_of_a_writer_that_was_killed_have_everything_that_was_not_acknowledged(tmp_path: Path) -> None:
    options = quiet(max_batch_events=10, in_flight=2, spill=Spill(tmp_path / "spill"))
    async with AsyncClient("127.0.0.1:1") as away:
        writer = away.usage_writer(options)
        await writer.send_all(events(100))
        await until(lambda: writer.counts.spilled >= 60)  # the rest is with the stream, and in files, too
        await asyncio.to_thread(shutil.copytree, tmp_path / "spill", tmp_path / "after the crash")
        await writer.close(timeout=0)
    held = Held()
    held.gate.set()
    async with (
        Scripted(held) as server,
        AsyncClient(f"127.0.0.1:{server.port}") as client,
        client.usage_writer(quiet(spill=Spill(tmp_path / "after the crash"))) as again,
    ):
        await again.flush(60)
    assert sorted(set(held.seen)) == sorted(one.event_id for one in events(100))


async def test_patience_ends_and_the_writer_fails() -> None:
    async with AsyncClient("127.0.0.1:1") as away:
        writer = away.usage_writer(quiet(patience=0.0))
        future = await writer.submit(event())
        with pytest.raises(ConnectionLost):
            await future
        with pytest.raises(ConnectionLost):
            await writer.close()


async def test_closing_twice_does_nothing_and_a_writer_without_usage_opens_no_stream() -> None:
    async with Scripted(answers_all) as server, AsyncClient(f"127.0.0.1:{server.port}") as client:
        async with client.usage_writer() as writer:
            pass
        await writer.close()
        assert server.received == []


async def test_an_error_of_the_block_is_not_replaced_by_one_of_the_writer() -> None:
    async def fail(away: AsyncClient) -> None:
        async with away.usage_writer(quiet(close_timeout=0.0)) as writer:
            await writer.send(event())
            raise ZeroDivisionError

    async with AsyncClient("127.0.0.1:1") as away:
        with pytest.raises(ZeroDivisionError):
            await fail(away)


@pytest.mark.parametrize(
    "wrong", [{"max_batch_events": 0}, {"max_batch_events": 5_001}, {"linger": -1.0}, {"in_flight": 65}]
)
def test_options_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        quiet(**wrong)
    assert issubclass(ConnectionLost, TidemarkError)


@pytest.mark.parametrize("size", [0, 1, 60, 900, 1_100, 20_000])
def test_a_message_is_encoded_as_protobuf_encodes_it(size: int) -> None:
    made = [event(), event("x" * size), UsageEvent()]
    for options in (AnswerOptions(), AnswerOptions(include_gauges=True, max_bytes=1 << 24)):
        expected = EvaluateUsageRequest(
            batch=UsageBatch(
                batch_id="b-1",
                events=made,
                include_gauges=options.include_gauges,
                max_answer_bytes=options.max_bytes,
            )
        )
        assert EvaluateUsageRequest.FromString(batches.request("b-1", made, options)) == expected
        assert batches.request("b-1", [one.SerializeToString() for one in made], options) == batches.request(
            "b-1", made, options
        )
