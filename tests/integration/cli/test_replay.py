"""`tidemark replay` as a process: pipes, compressed files, signals."""

import asyncio
import gzip
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.main import tidemark
from generated.tidemark.v1.alert_service_pb2 import EvaluateUsageResponse
from tests.support.clients.scripted import Context, Requests, Scripted, answer, answers_all

DEADLINE = 60.0  # seconds
TIDEMARK = (sys.executable, "-P", "-m", "cli.main")
HEADER = "event_id,customer_id,metric_id,quantity,time\n"


def rows(count: int, first: int = 0) -> str:
    return "".join(f"e{number},acme,calls,1,2026-03-01T00:00:00Z\n" for number in range(first, first + count))


async def started(server: Scripted, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *TIDEMARK,
        *arguments,
        *("--server", f"127.0.0.1:{server.port}"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def finished(process: asyncio.subprocess.Process, given: bytes | None = None) -> tuple[int | None, str, str]:
    async with asyncio.timeout(DEADLINE):
        out, err = await process.communicate(given)
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("packed", ["utf-8", "gzip", "utf-16", "utf-16-le", "utf-16-be"])
async def test_replay_reads_standard_input_in_every_encoding(packed: str) -> None:
    name = "/dev/stdin" if packed == "gzip" else "-"
    text = HEADER + rows(30)
    content = gzip.compress(text.encode()) if packed == "gzip" else text.encode(packed)
    async with Scripted(answers_all) as server:
        code, out, err = await finished(await started(server, "replay", name), content)
    assert (code, err) == (0, "")
    assert out.split()[:5] == ["30", "rows", "read", "30", "accepted"]


async def test_replay_reads_a_named_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    async with Scripted(answers_all) as server:
        process = await started(server, "replay", str(path))
        await asyncio.to_thread(path.write_text, HEADER + rows(7))
        code, out, _ = await finished(process)
    assert code == 0
    assert out.split()[:5] == ["7", "rows", "read", "7", "accepted"]


async def test_replay_of_a_truncated_file_sends_the_rows_before_its_end(tmp_path: Path) -> None:
    path = tmp_path / "usage.csv.gz"
    path.write_bytes(gzip.compress((HEADER + rows(5000)).encode())[:-2000])
    async with Scripted(answers_all) as server:
        code, out, err = await finished(await started(server, "replay", str(path)))
    assert code == 1
    read, accepted = (int(word.replace(",", "")) for word in (out.split()[0], out.split()[3]))
    assert read - 1 <= accepted <= read  # the last row may be cut off, too
    assert accepted > 100
    assert "cannot be read to its end: it is compressed with gzip and truncated; it ended after row" in err
    assert "Traceback" not in err


async def test_signal_ends_replay_after_the_batches_in_flight(tmp_path: Path) -> None:
    path = tmp_path / "usage.csv"
    path.write_text(HEADER + rows(5000))
    here, go_on = asyncio.Event(), asyncio.Event()

    async def answers_late(requests: Requests, context: Context) -> AsyncIterator[EvaluateUsageResponse]:
        yield answer(await anext(requests))
        second = await anext(requests)
        here.set()
        await go_on.wait()
        yield answer(second)
        async for request in requests:
            yield answer(request)

    async with Scripted(answers_late) as server:
        process = await started(server, "replay", str(path), "--batch-size", "100", "--window", "2")
        assert process.stderr is not None
        async with asyncio.timeout(DEADLINE):
            await here.wait()
            process.send_signal(signal.SIGINT)
            first = (await process.stderr.readline()).decode()
            go_on.set()
        code, out, err = await finished(process)
    assert code == 130
    assert "ending" in first
    # It waited for the batches in flight, and sent no new batch except those that it had read already: one
    # acknowledged, at most two in the window, one ready, and one that waits to be.
    assert out.split()[3:5] in [[f"{100 * batches}", "accepted"] for batches in (2, 3, 4, 5)]
    assert "run the same command again" in err
    assert "Aborted" not in err
    assert "Traceback" not in err


async def test_second_signal_ends_replay_while_the_server_is_silent(tmp_path: Path) -> None:
    path = tmp_path / "usage.csv"
    path.write_text(HEADER + rows(500))
    here = asyncio.Event()

    async def silent(requests: Requests, context: Context) -> AsyncIterator[EvaluateUsageResponse]:
        yield answer(await anext(requests))
        await anext(requests)
        await anext(requests)  # two may be in flight, so the first one is acknowledged
        here.set()
        await asyncio.Event().wait()

    async with Scripted(silent) as server:
        process = await started(server, "replay", str(path), "--batch-size", "100", "--window", "2")
        assert process.stderr is not None
        async with asyncio.timeout(DEADLINE):
            await here.wait()
            process.terminate()
            await process.stderr.readline()
            process.terminate()  # the second ends it at once
        code, out, _ = await finished(process)
    assert code == 143
    assert "100  accepted" in out
    assert "read, but not acknowledged" in out


@pytest.mark.parametrize(("number", "ended"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
async def test_signal_ends_replay_while_a_pipe_brings_nothing(number: signal.Signals, ended: int) -> None:
    here = asyncio.Event()

    async def hears(requests: Requests, context: Context) -> AsyncIterator[EvaluateUsageResponse]:
        async for request in requests:
            yield answer(request)
            here.set()

    async with Scripted(hears) as server:
        process = await started(server, "replay", "-", "--batch-size", "10")
        assert process.stdin is not None
        process.stdin.write((HEADER + rows(10)).encode())
        async with asyncio.timeout(DEADLINE):
            await here.wait()
            process.send_signal(number)
            code = await process.wait()
        process.stdin.close()
        assert process.stdout is not None
        out = (await process.stdout.read()).decode()
    assert code == ended
    assert "10  accepted" in out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"a,b,a\n1,2,3\n", "more than one column named 'a'"),
        (b"customer_id;a,metric_id|b;quantity|c,time\n", "--delimiter"),
        (b"(\xb5/\xfdxxxx", "compressed with zstd and damaged"),
        (b"PAR1xxxx", "no Parquet file that can be read"),
        (b"PK\x03\x04xxxx", "unzip -p"),
        (b"\xff\n", "is not UTF-8"),
        (b'"a\n', "not CSV"),
        (b"\n\n", "is empty"),
        (b",,\n", "blank"),
        (gzip.compress(b"", mtime=0), "is empty"),
    ],
)
def test_replay_of_an_unusable_file_ends_with_2_and_a_hint(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "usage"
    path.write_bytes(content)
    done = CliRunner().invoke(tidemark, ["replay", str(path), "--server", "127.0.0.1:1"])
    assert done.exit_code == 2, done.exception
    assert words in done.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("replay", "/nothing/there"),
        ("replay", "/"),
        ("replay", "-", "--delimiter", ";;"),
        ("replay", "-", "--delimiter", '"'),
        ("replay", "-", "--shift-days", "99999999999"),
        ("replay", "-", "--server", "nowhere"),
        ("replay", "-", "--server", "http://127.0.0.1:50051"),
        ("watch", "--server", "127.0.0.1:99999"),
        ("watch", "--key", "tmk a"),
        ("watch", "--key", "tmk_ä"),
        ("listen", "--server", ""),
    ],
)
def test_invalid_options_end_with_2_and_without_a_traceback(arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(tidemark, arguments)
    assert done.exit_code == 2, done.exception
    assert done.output
