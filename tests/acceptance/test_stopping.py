"""Signals drain a process; a process or database that was killed is started again."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes.programs import DEADLINE, Programs
from tests.support.processes.up import TIDEMARK, TIMEOUT, Up, alive, environment, eventually, run

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose database is made by the first test that starts it, and stopped after each."""
    return tmp_path_factory.mktemp("up")


@pytest.fixture
def up(folder: Path) -> Iterator[Up]:
    """`tidemark up`, the only user of its database."""
    running = Up(folder)
    yield running
    running.stop()


def test_embedded_database_is_started_again_and_stops_with_its_last_user(up: Up) -> None:
    before = up.postmaster()
    os.kill(before, signal.SIGKILL)
    up.wait_for("the database ended")
    up.wait_for("database system is ready to accept connections")  # of its own last words
    up.wait_for("the database runs again")
    database = up.postmaster()
    assert database != before
    eventually(lambda: up.run("watch", "--once").returncode == 0, up.said)

    second = subprocess.Popen(
        [*TIDEMARK, "up"], env=environment(up.folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        address = ""
        assert second.stdout is not None
        for line in second.stdout:
            if found := re.search(r"server +listening on (\S+)", line):
                address = found.group(1)
            if "Ctrl-C drains" in line:
                break
        second.stdout.close()  # its output is not read any more, which must not end it

        up.process.kill()
        up.process.wait(TIMEOUT)
        assert run(up.folder, "watch", "--once", TIDEMARK_SERVER=address).returncode == 0
        assert up.postmaster() == database
        second.send_signal(signal.SIGHUP)
        assert second.wait(TIMEOUT) == 0
    finally:
        if second.poll() is None:
            second.terminate()
            second.wait(TIMEOUT)
    eventually(lambda: not alive(database))


async def test_every_signal_drains_server_and_notifier(programs: Programs) -> None:
    started = await asyncio.gather(
        *(programs.serve(f"server {number.name}") for number in SIGNALS),
        *(programs.notify(f"notifier {number.name}") for number in SIGNALS),
    )
    for number, program in zip((*SIGNALS, *SIGNALS), started, strict=True):
        os.kill(program.pid, number)
    async with asyncio.timeout(DEADLINE):
        assert await asyncio.gather(*(program.wait() for program in started)) == [0] * len(started)
    for number, server, notifier in zip(SIGNALS, started[:4], started[4:], strict=True):
        assert "stopped" in server.said(), number
        assert "the notifier has stopped" in notifier.said(), number


def test_sighup_that_is_ignored_at_the_start_stays_ignored(tmp_path: Path) -> None:
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


def test_serve_alone_starts_its_embedded_database_again(folder: Path) -> None:
    log = folder / "serve.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [*TIDEMARK, "serve"], env=environment(folder), stdout=subprocess.PIPE, stderr=file, text=True
        )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("listening on ")
    pid_file = folder / "data" / "postgres" / "postmaster.pid"
    os.kill(int(pid_file.read_text().splitlines()[0]), signal.SIGKILL)
    eventually(lambda: "runs again" in log.read_text(), log.read_text)
    assert "Its last words" in log.read_text()
    postmaster = int(pid_file.read_text().splitlines()[0])
    process.send_signal(signal.SIGHUP)
    assert process.wait(TIMEOUT) == 0
    assert "draining" in log.read_text()
    process.stdout.close()
    assert not alive(postmaster)
