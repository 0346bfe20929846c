"""The monitoring port of real processes: workers, `up`, and a database that is away."""

import asyncio
import os
import re
import signal
import socket
from pathlib import Path

import pytest

from tests.support.monitoring.scraping import Scraped, scrape, status
from tests.support.processes.postgres import OwnServer
from tests.support.processes.programs import DEADLINE, POLLING_INTERVAL, Program, Programs, running, until
from tests.support.processes.up import run

WORKERS = 2
ANY_PORT = "127.0.0.1:0"


def monitoring_port(program: Program) -> int:
    """The port that a program has logged."""
    return int(re.findall(r"monitoring_port=(\d+)", program.said())[-1])


async def until_status(port: int, path: str, code: int) -> None:
    """Waits until the port answers with that status."""
    async with asyncio.timeout(DEADLINE):
        while await status(port, path) != code:  # noqa: ASYNC110 (it happens in another process)
            await asyncio.sleep(POLLING_INTERVAL)


async def until_value(port: int, name: str, value: float, **labels: str) -> Scraped:
    """Waits until a scrape has a series with that value."""
    async with asyncio.timeout(DEADLINE):
        while True:
            found = await scrape(port)
            if found.has(name, **labels) and found.value(name, **labels) == value:
                return found
            await asyncio.sleep(POLLING_INTERVAL)


async def until_gone(port: int, name: str) -> None:
    """Waits until a scrape has no series of that name."""
    async with asyncio.timeout(DEADLINE):
        while (await scrape(port)).has(name):  # noqa: ASYNC110 (it happens in another process)
            await asyncio.sleep(POLLING_INTERVAL)


async def test_one_port_shows_all_workers_while_one_of_them_hangs(programs: Programs) -> None:
    server = await programs.serve(workers=WORKERS, METRICS_LISTEN=ANY_PORT)
    port = monitoring_port(server)
    await until_status(port, "/readyz", 200)
    found = await scrape(port)
    assert found.labels_of("process_resident_memory_bytes", "worker") == {"1", "2"}
    assert len(found.values("process_resident_memory_bytes")) == WORKERS + 1  # and the parent
    assert found.value("tidemark_build_info") == WORKERS
    assert found.value("tidemark_child_up") == WORKERS

    hanging = server.workers()[0]
    os.kill(hanging, signal.SIGSTOP)
    try:
        found = await scrape(port)
        assert found.value("tidemark_child_up") == WORKERS - 1
        assert found.value("tidemark_build_info") == WORKERS - 1
        assert await status(port, "/readyz") == 200
        assert await status(port, "/healthz") == 503
    finally:
        os.kill(hanging, signal.SIGCONT)
    await until_value(port, "tidemark_child_up", WORKERS)
    await until_status(port, "/healthz", 200)


async def test_a_worker_that_was_started_again_is_in_the_scrape(programs: Programs) -> None:
    server = await programs.serve(workers=WORKERS, METRICS_LISTEN=ANY_PORT)
    port = monitoring_port(server)
    before = await until_value(port, "tidemark_child_up", WORKERS)
    started = before.values("process_start_time_seconds")
    os.kill(server.workers()[0], signal.SIGKILL)
    async with asyncio.timeout(DEADLINE):
        while True:
            found = await scrape(port)
            if found.value("tidemark_child_up") == WORKERS and found.values("process_start_time_seconds") != started:
                break
            await asyncio.sleep(POLLING_INTERVAL)
    assert await status(port, "/healthz") == 200


async def test_a_scrape_answers_while_the_database_is_down(postgres: OwnServer, tmp_path: Path) -> None:
    async with running(postgres.url, tmp_path) as programs:
        server = await programs.serve(METRICS_LISTEN=ANY_PORT)
        notifier = await programs.notify(METRICS_LISTEN=ANY_PORT)
        await until(lambda: "monitoring_port" in notifier.said())
        ports = monitoring_port(server), monitoring_port(notifier)
        for port in ports:
            await until_value(port, "tidemark_ready", 1)
            await until_value(port, "tidemark_outbox_notifications", 0)
        await postgres.stop()
        for port in ports:
            found = await until_value(port, "tidemark_ready", 0)
            assert found.value("tidemark_build_info") == 1
            assert await status(port, "/healthz") == 200
            assert await status(port, "/readyz") == 503
            await until_gone(port, "tidemark_outbox_notifications")
        await postgres.start()
        for port in ports:
            await until_value(port, "tidemark_ready", 1)
            await until_value(port, "tidemark_outbox_notifications", 0)


@pytest.mark.parametrize("command", ["serve", "notify", "up"])
def test_a_port_in_use_is_named_in_one_sentence(command: str, database_url: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run(tmp_path, command, "--metrics-listen", f"127.0.0.1:{port}", TIDEMARK_DATABASE_URL=database_url)
    assert ended.returncode == 1
    # `up` checks its ports before it starts anything, and names the option.
    address = f"127.0.0.1:{port}" if command == "up" else f"127.0.0.1 port {port} for health and metrics"
    assert f"cannot listen on {address}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_option_that_is_no_address_is_refused(tmp_path: Path) -> None:
    ended = run(tmp_path, "serve", "--metrics-listen", "9464")
    assert ended.returncode == 2
    assert "write host:port" in ended.stderr
