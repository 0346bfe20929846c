"""What ends a process or its database: every signal drains, and what was killed is started again."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.processes import DEADLINE, Programs
from tests.acceptance.up import TIDEMARK, TIMEOUT, Up, alive, environment, eventually

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    """`tidemark up` on a database of its own."""
    running = Up(tmp_path)
    yield running
    running.stop()


def test_up_starts_a_database_again_that_was_killed(up: Up) -> None:
    before = up.postmaster()
    os.kill(before, signal.SIGKILL)
    up.wait_for("the database ended")
    up.wait_for("database system is ready to accept connections")  # of its own last words
    up.wait_for("the database runs again")
    assert up.postmaster() != before
    eventually(lambda: up.run("watch", "--once").returncode == 0, up.said)
    after = up.postmaster()
    up.process.send_signal(signal.SIGHUP)
    assert up.process.wait(TIMEOUT) == 0
    assert "draining" in up.said()
    assert not alive(after)


def test_two_ups_share_a_database_until_the_last_has_left(up: Up) -> None:
    database = up.postmaster()
    (up.folder / "second").mkdir()
    second = Up(up.folder / "second", TIDEMARK_DATA_DIRECTORY=str(up.folder / "data"))
    try:
        up.process.kill()
        up.process.wait(TIMEOUT)
        assert second.run("watch", "--once").returncode == 0
        assert up.postmaster() == database
    finally:
        second.stop()
    assert not alive(database)


def test_an_output_that_is_not_read_any_more_does_not_end_up(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*TIDEMARK, "up"], env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "Ctrl-C drains" in line:
            break
    process.stdout.close()
    postmaster = int((tmp_path / "data" / "postgres" / "postmaster.pid").read_text().splitlines()[0])
    process.send_signal(signal.SIGTERM)
    assert process.wait(TIMEOUT) == 0
    assert not alive(postmaster)


@pytest.mark.parametrize("number", SIGNALS)
async def test_a_signal_drains_server_and_notifier(programs: Programs, number: signal.Signals) -> None:
    server, notifier = await asyncio.gather(programs.serve(), programs.notify())
    for program in (server, notifier):
        os.kill(program.pid, number)
        async with asyncio.timeout(DEADLINE):
            assert await program.wait() == 0
    assert "stopped" in server.said()
    assert "the notifier has stopped" in notifier.said()


def test_a_hang_up_that_is_ignored_from_the_start_stays_ignored(tmp_path: Path) -> None:
    script = (
        "import asyncio, os, signal\n"
        "from runtime.signals import on_stop\n"
        "async def main():\n"
        "    stop = asyncio.Event()\n"
        "    on_stop(stop.set)\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    await asyncio.sleep(0)\n"
        "    await asyncio.sleep(0.05)\n"
        "    assert not stop.is_set()\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    await stop.wait()\n"
        "asyncio.run(main())\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{script}"],
        timeout=TIMEOUT,
        check=False,
    )
    assert ran.returncode == 0


def test_a_server_alone_starts_its_database_again(tmp_path: Path) -> None:
    log = tmp_path / "serve.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [*TIDEMARK, "serve"], env=environment(tmp_path), stdout=subprocess.PIPE, stderr=file, text=True
        )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("listening on ")
    pid_file = tmp_path / "data" / "postgres" / "postmaster.pid"
    os.kill(int(pid_file.read_text().splitlines()[0]), signal.SIGKILL)
    eventually(lambda: "runs again" in log.read_text(), log.read_text)
    assert "Its last words" in log.read_text()
    postmaster = int(pid_file.read_text().splitlines()[0])
    process.send_signal(signal.SIGHUP)
    assert process.wait(TIMEOUT) == 0
    process.stdout.close()
    assert not alive(postmaster)
