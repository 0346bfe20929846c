"""The first process of a container, which gets no signal without a handler, ends at SIGTERM before it serves."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes.up import TIDEMARK, TIMEOUT, environment

UNSHARE = shutil.which("unshare")


@pytest.fixture
def silent_database() -> Iterator[socket.socket]:
    """A port that accepts connections and never answers, as a database does whose machine hangs."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(TIMEOUT)
        yield server


def first_process_of(namespace: subprocess.Popen[bytes]) -> int:
    """The id, outside of the namespace, of the process that has the id 1 in it."""
    (child,) = Path(f"/proc/{namespace.pid}/task/{namespace.pid}/children").read_text().split()
    return int(child)


@pytest.mark.skipif(
    UNSHARE is None or subprocess.run([UNSHARE, "--pid", "--fork", "true"], check=False).returncode != 0,
    reason="this system or user cannot make a namespace of processes",
)
@pytest.mark.parametrize("command", ["serve", "notify", "migrate"])
def test_a_process_that_waits_for_its_database_ends(
    command: str, silent_database: socket.socket, tmp_path: Path
) -> None:
    assert UNSHARE is not None
    host, port = silent_database.getsockname()
    container = subprocess.Popen(
        [UNSHARE, "--pid", "--fork", "--kill-child", *TIDEMARK, command],
        env=environment(tmp_path, TIDEMARK_DATABASE_URL=f"postgresql://tidemark@{host}:{port}/tidemark"),
    )
    try:
        connection, _ = silent_database.accept()
        with connection:
            os.kill(first_process_of(container), signal.SIGTERM)
            assert container.wait(TIMEOUT) == 128 + signal.SIGTERM
    finally:
        container.kill()
        container.wait(TIMEOUT)
