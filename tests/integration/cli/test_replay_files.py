"""`tidemark replay` against a server: rejected rows that are mended, and runs that are ended and continued."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.main import tidemark
from generated.tidemark.v1.alert_service_pb2 import CreateAlertRequest
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from runtime.clock import ManualClock
from store.postgres.database import Database
from tests.support.processes.forked import started
from tests.support.server.running import Running, running
from tests.support.usage.alerts import usage_alert
from tests.support.waiting import within

HEADER = "customer_id,metric_id,quantity,time\n"
TIME = "2026-03-01T00:00:00Z"


@pytest.fixture
async def server(database: Database) -> AsyncIterator[Running]:
    async with running(database, ManualClock(datetime(2026, 3, 15, tzinfo=UTC))) as found:
        yield found


async def replay(server: Running, path: Path | str, *options: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and the summary."""
    command = ["replay", str(path), "--json", "--server", f"127.0.0.1:{server.port}", *options]
    done: Result = await asyncio.to_thread(CliRunner().invoke, tidemark, command)
    assert done.stdout, done.output
    return done.exit_code, json.loads(done.stdout)


def rows(numbers: Sequence[int], customer: str) -> str:
    return "".join(f"{customer},calls,{number},{TIME}\n" for number in numbers)


async def test_rejected_rows_are_mended_and_count_once(server: Running, tmp_path: Path) -> None:
    path, rejected, again = tmp_path / "usage.csv", tmp_path / "rejected.csv", tmp_path / "again.csv"
    # The second row would be equal to the first once it is mended: its number tells them apart.
    bad = [b"acme-1,calls,,%s\n", b"acme-1,calls,one,%s\n", b"acme-\xff,calls,1,%s\n", b'acme-1,"calls,1,%s\n']
    content = HEADER.encode() + rows([1], "acme-1").encode() + b"".join(line % TIME.encode() for line in bad)
    path.write_bytes(content + rows([3], "acme-1").encode().removesuffix(b"\n") + b",x")
    code, found = await replay(server, path, "--rejected", str(rejected))
    assert (code, found["accepted"], found["rejected"]) == (3, 1, 5)
    written = rejected.read_bytes()
    assert written.count(b"#tidemark-rejected: row ") == 5
    assert b"acme-\xff,calls,1" in written
    assert b"row 3, line 4: " in written

    code, found = await replay(server, rejected, "--rejected", str(again))
    assert (code, found["accepted"], found["rejected"]) == (3, 0, 5)
    mended = written.replace(b"calls,,", b"calls,1,").replace(b"one", b"1").replace(b"\xff", b"1")
    rejected.write_bytes(mended.replace(b'"', b"").replace(b",x\n", b"\n"))
    code, found = await replay(server, rejected)
    assert (code, found["accepted"], found["duplicates"]) == (0, 5, 0)
    code, found = await replay(server, rejected)
    assert (code, found["accepted"], found["duplicates"]) == (0, 0, 5)


async def test_a_file_of_something_else_is_not_overwritten(server: Running, tmp_path: Path) -> None:
    path, other = tmp_path / "usage.csv", tmp_path / "other.csv"
    path.write_text(HEADER + rows([1], "acme-2"))
    other.write_text("mine\n")
    for target in (other, path):
        command = ["replay", str(path), "--rejected", str(target), "--server", f"127.0.0.1:{server.port}"]
        done = await asyncio.to_thread(CliRunner().invoke, tidemark, command)
        assert done.exit_code == 2, done.output
    assert other.read_text() == "mine\n"


async def test_a_state_continues_after_the_rows_that_are_acknowledged(server: Running, tmp_path: Path) -> None:
    path, state = tmp_path / "usage.csv", tmp_path / "state"
    path.write_text(HEADER + rows(range(1, 51), "acme-3"))
    options = ("--state", str(state), "--batch-size", "7")
    code, found = await replay(server, path, *options)
    assert (code, found["accepted"]) == (0, 50)
    with path.open("a") as file:
        file.write(rows(range(51, 61), "acme-3"))
    code, found = await replay(server, path, *options)
    assert (code, found["rows_of_earlier_runs"], found["accepted"], found["duplicates"]) == (0, 50, 10, 0)

    path.write_text(HEADER + rows(range(2, 62), "acme-3"))
    done = await asyncio.to_thread(
        CliRunner().invoke, tidemark, ["replay", str(path), *options, "--server", f"127.0.0.1:{server.port}"]
    )
    assert (done.exit_code, "the state is of another file" in done.output) == (2, True)
    done = await asyncio.to_thread(
        CliRunner().invoke,
        tidemark,
        ["replay", str(path), *options, "--metric", "=x", "--server", f"127.0.0.1:{server.port}"],
    )
    assert (done.exit_code, "with other options" in done.output) == (2, True)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
async def test_a_run_that_is_killed_and_continued_loses_nothing_and_counts_nothing_twice(
    server: Running, tmp_path: Path, number: signal.Signals
) -> None:
    path, rejected = tmp_path / "usage.csv", tmp_path / "rejected.csv"
    count = 60_000
    bad = {7, 20_000, 59_990}
    customer = f"killed-{number.name}"
    lines = [f"{customer},calls,{'x' if row in bad else 1},{TIME}\n" for row in range(count)]
    path.write_text(HEADER + "".join(lines))
    command = ["replay", str(path), "--resume", "--rejected", str(rejected), "--batch-size", "250", "--json"]
    command += ["--server", f"127.0.0.1:{server.port}"]
    state = path.with_name("usage.csv.replay-state")
    process = await started(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with within("a state of the replay"):
        while not (state.exists() and json.loads(state.read_bytes())["rows"]):  # noqa: ASYNC110  # of a process
            await asyncio.sleep(0.01)
        os.kill(process.pid, number)
        out, err = await process.communicate()
    assert process.returncode in (-signal.SIGKILL, 130), err.decode()
    if number is signal.SIGINT:
        stopped = json.loads(out)
        assert stopped["accepted"] + stopped["rejected"] <= json.loads(state.read_bytes())["rows"] < count
        assert "ended the replay before the end of the file" in err.decode()
    patient = ("--patience", "300")  # the server of this process answers late while the machine is busy
    code, found = await replay(server, path, "--resume", "--rejected", str(rejected), "--batch-size", "250", *patient)
    assert code == 3
    assert found["rows_of_earlier_runs"] + found["rows"] == count
    assert rejected.read_text().count("#tidemark-rejected") == len(bad)
    code, found = await replay(server, path, *patient)
    assert (code, found["accepted"], found["duplicates"]) == (3, 0, count - len(bad))


async def test_the_summary_has_the_crossings_over_time(server: Running, tmp_path: Path) -> None:
    alert = usage_alert("5", "8", metric="plotted")
    await AlertServiceStub(server.channel).CreateAlert(CreateAlertRequest(alert=alert))
    path = tmp_path / "usage.ndjson"
    row = {"customer_id": "acme-4", "metric_id": "plotted", "quantity": 1}
    path.write_text("".join(json.dumps({**row, "time": 1772359200 + 60 * hour}) + "\n" for hour in range(10)))
    code, found = await replay(server, path)
    assert (code, found["crossings"], sum(found["timeline"]["crossings"])) == (0, 2, 2)
    assert sum(found["timeline"]["events"]) == 10
