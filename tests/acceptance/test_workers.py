"""Several server processes on one port: they share the connections, and one that dies takes only its own with it."""

import asyncio
import os
import re
import signal
import socket
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cli.client.connection import Address
from tests.support.processes import results
from tests.support.processes.programs import DEADLINE, CannotStart, Program, Programs, session, until
from tests.support.processes.results import ALERTS, SEATS
from tests.support.processes.traffic import Client, progress, streaming
from tests.support.processes.up import Up, alive, started_by

WORKERS = 2
CLIENTS = 6  # connections, so that nearly always both workers have some
PER_WORKER = re.compile(r"listening on \S+ port (\d+) +.*worker=(\d+)")
NUMBERED = re.compile(r"(\"action\": \"listen\").*\"worker\": (\d+)")


async def one_killed(server: Program) -> int:
    """Kills a worker with SIGKILL, and waits until another one has taken its place. Returns its process id."""
    before = server.workers()
    os.kill(before[0], signal.SIGKILL)
    # The new one has printed its address before the parent reports it.
    lives = server.said().count("runs again")
    await until(lambda: server.said().count("runs again") > lives and len(server.workers()) == WORKERS)
    assert set(before[1:]) < set(server.workers())
    return before[0]


async def health(address: Address, service: str = "") -> int:
    """The health of the server, over a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address.server, options=options) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        stub: Any = health_pb2_grpc.HealthStub(channel)  # it has no types
        return int((await stub.Check(request, timeout=DEADLINE)).status)


async def test_a_worker_killed_under_load_loses_no_event_and_counts_none_twice(
    programs: Programs, database_url: str
) -> None:
    server = await programs.serve(workers=WORKERS)
    await results.create(server.address, *ALERTS, SEATS)
    async with streaming(server.address, CLIENTS, datetime.now(UTC)) as clients:
        await progress(clients)
        await one_killed(server)
        await progress(clients)
        await one_killed(server)
        await progress(clients)
    sent = [event for client in clients for event in client.sent]
    expected = results.expected(sent, *ALERTS, SEATS)
    assert await results.stored(database_url) == expected
    answered = sum((results.reached_in(client.transitions) for client in clients), Counter())
    assert answered <= expected.reached
    assert await server.stop() == 0
    # Nothing else went wrong, and the other worker never noticed.
    assert all("was ended by SIGKILL" in line for line in server.complaints())
    assert len(server.complaints()) == 2
    async with session(database_url) as connection:
        cursor = await connection.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        assert await cursor.fetchall() == [(0,)]


async def test_connections_are_shared_by_the_workers(programs: Programs) -> None:
    server = await programs.serve(workers=WORKERS)
    assert sorted(number for _, number in PER_WORKER.findall(server.said())) == ["1", "2"]
    assert {port for port, _ in PER_WORKER.findall(server.said())} == {server.address.server.rpartition(":")[2]}
    accepted: Counter[int] = Counter()
    channels = []
    for _ in range(32):  # by chance all of them belong to one worker in one of 2 * 10^9 runs
        channel = grpc.aio.insecure_channel(server.address.server, options=[("grpc.use_local_subchannel_pool", 1)])
        await channel.channel_ready()
        channels.append(channel)
    for pid in server.workers():
        accepted[pid] = connections_of(pid, int(server.address.server.rpartition(":")[2]))
    await asyncio.gather(*(channel.close() for channel in channels))
    assert len(accepted) == WORKERS
    assert min(accepted.values()) > 0
    assert await server.stop() == 0


def connections_of(pid: int, port: int) -> int:
    """The established connections of a process on a local port."""
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = 0
    for table in ("tcp", "tcp6"):
        with open(f"/proc/{pid}/net/{table}") as file:
            for line in list(file)[1:]:
                fields = line.split()
                is_established = fields[3] == "01"
                if is_established and int(fields[1].rpartition(":")[2], 16) == port and fields[9] in inodes:
                    found += 1
    return found


async def test_signal_drains_the_workers_and_everything_acknowledged_is_stored(
    programs: Programs, database_url: str
) -> None:
    server = await programs.serve(workers=WORKERS)
    await results.create(server.address, *ALERTS, SEATS)
    workers = server.workers()
    async with streaming(server.address, CLIENTS, datetime.now(UTC)) as clients:
        await progress(clients)
        assert await server.stop() == 0
        assert not any(alive(pid) for pid in workers)
        await server.start()  # on the same port; the clients send again what was not acknowledged
        await progress(clients)
    sent = [event for client in clients for event in client.sent]
    assert await results.stored(database_url) == results.expected(sent, *ALERTS, SEATS)
    assert_drained(clients)
    assert await server.stop() == 0
    assert server.complaints() == []
    assert server.said().count(" stopped") == 2 * WORKERS


def assert_drained(clients: list[Client]) -> None:
    """Every stream was ended by the server, and none was cut."""
    # One whose stream had just ended may have met the closed port before the second start.
    assert all(client.interruptions for client in clients)


async def test_health_is_the_same_on_every_connection_and_a_second_signal_ends_the_workers(
    programs: Programs,
) -> None:
    server = await programs.serve(workers=WORKERS, PROPAGATION_DELAY_SECONDS="300")
    serving = health_pb2.HealthCheckResponse.SERVING
    answers = await asyncio.gather(*(health(server.address) for _ in range(16)))
    assert set(answers) == {serving}
    os.kill(server.pid, signal.SIGTERM)
    await until(lambda: server.said().count("stopping: NOT_SERVING") == WORKERS)
    answers = await asyncio.gather(
        *(health(server.address) for _ in range(8)), *(health(server.address, "liveness") for _ in range(8))
    )
    assert set(answers[:8]) == {health_pb2.HealthCheckResponse.NOT_SERVING}
    assert set(answers[8:]) == {serving}
    os.kill(server.pid, signal.SIGTERM)  # ends the workers at once
    assert await server.wait() == 0


async def test_port_of_workers_is_refused_to_other_servers(programs: Programs) -> None:
    server = await programs.serve(workers=WORKERS)
    for workers in (1, WORKERS):
        with pytest.raises(CannotStart) as refused:
            await programs.serve(f"other-{workers}", workers=workers, LISTEN=server.address.server)
        assert any(f"cannot listen on {server.address.server}" in line for line in refused.value.last_lines)


async def test_port_of_another_server_is_refused_to_workers(programs: Programs) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(CannotStart) as refused:
            await programs.serve(workers=WORKERS, LISTEN=address)
        assert any(f"cannot listen on {address}" in line for line in refused.value.last_lines)


async def test_workers_drain_when_their_parent_is_killed(programs: Programs) -> None:
    server = await programs.serve(workers=WORKERS)
    workers = server.workers()
    assert len(workers) == WORKERS
    await server.killed()
    await until(lambda: not any(alive(pid) for pid in workers))
    assert server.said().count(" stopped") == WORKERS


def test_up_runs_workers_on_its_embedded_database(tmp_path: Path) -> None:
    up = Up(tmp_path, "--workers", str(WORKERS))
    try:
        parent = up.children()["serve"]
        workers = [pid for pid, arguments in started_by(parent).items() if "--worker " in arguments]
        assert len(workers) == WORKERS
        # One log, in which each line of a worker has its number.
        assert {number for _, number in NUMBERED.findall(up.said())} == {"1", "2"}
        os.kill(workers[0], signal.SIGKILL)
        up.wait_for("worker 1 runs again|worker 2 runs again")
        assert up.run("watch", "--once").returncode == 0
        workers = [pid for pid, arguments in started_by(parent).items() if "--worker " in arguments]
        assert len(workers) == WORKERS
    finally:
        up.stop()
    assert not any(alive(pid) for pid in (parent, *workers))
