"""A process starts behind a pooler that keeps sessions, and refuses one that shares them."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from cli.doctor.findings import Severity
from cli.main import tidemark
from store.postgres.poolers import shares_sessions
from tests.support.cli.doctor import check
from tests.support.server.sharing import own_database
from tests.support.system_postgres import system_postgres

pytestmark = own_database

START_TIMEOUT = 30.0  # seconds


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    """A server that PgBouncer can reach: both run as users of the operating system."""
    if shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip("PgBouncer is not installed (Debian: apt install pgbouncer)")
    with system_postgres() as url:
        yield url


@contextmanager
def pgbouncer(folder: Path, server_url: str, mode: str) -> Iterator[str]:
    """A PgBouncer in front of the server; yields the URL of the same database through it."""
    socket_folder = server_url.partition("host=")[2]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    folder.chmod(0o755)
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\npostgres = host={socket_folder} dbname=postgres user=postgres\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"pool_mode = {mode}\nlogfile =\npidfile =\nmax_client_conn = 100\ndefault_pool_size = 20\n"
    )
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None
    user = pwd.getpwnam("postgres").pw_name if os.geteuid() == 0 else None
    configuration = (folder / "pgbouncer.ini").open()
    process = subprocess.Popen(
        [program, "-q", "/dev/stdin"], user=user, stdin=configuration, stderr=subprocess.DEVNULL, cwd="/"
    )
    url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    try:
        _wait(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(START_TIMEOUT)
        configuration.close()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            psycopg.connect(url, connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            assert process.poll() is None, "PgBouncer ended"
            assert time.monotonic() < deadline, "PgBouncer does not answer"
            time.sleep(0.05)


def test_a_transaction_pooler_is_refused_at_the_start_with_the_reason(
    server_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pgbouncer(tmp_path, server_url, "transaction") as url:
        monkeypatch.setenv("TIDEMARK_DATABASE_URL", url)
        # `up` looks first whether its ports are free.
        monkeypatch.setenv("TIDEMARK_LISTEN", "127.0.0.1:0")
        monkeypatch.setenv("TIDEMARK_CONSOLE_LISTEN", "127.0.0.1:0")
        for command in ("serve", "notify", "up", "migrate"):
            result = CliRunner().invoke(tidemark, [command])
            assert result.exit_code == 1
            assert "a transaction pooler answers at" in result.output
            assert "pool_mode = session" in result.output


def test_a_transaction_pooler_in_front_of_a_worker_is_refused_at_the_start(
    server_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMARK_DATABASE_URL", server_url)
    with pgbouncer(tmp_path, server_url, "transaction") as url:
        address = url.partition("@")[2].partition("/")[0]
        # A worker that is away is no reason.
        monkeypatch.setenv("TIDEMARK_DATABASE_NODES", f"worker-1:5432=127.0.0.1:1,worker-2:5432={address}")
        result = CliRunner().invoke(tidemark, ["serve"])
        assert result.exit_code == 1
        assert f"a transaction pooler answers at {address}" in result.output
        assert "into TIDEMARK_DATABASE_NODES" in result.output


def test_a_session_pooler_is_used_like_a_direct_connection(
    server_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pgbouncer(tmp_path, server_url, "session") as url:
        monkeypatch.setenv("TIDEMARK_DATABASE_URL", url)
        result = CliRunner().invoke(tidemark, ["migrate"])
        assert result.exit_code == 0, result.output
        result = CliRunner().invoke(tidemark, ["keys", "create", "--organization", "acme"])
        assert result.exit_code == 0, result.output


async def test_the_doctor_finds_a_transaction_pooler(server_url: str, tmp_path: Path) -> None:
    assert (await check(server_url, "database.pooler")).severity is Severity.OK
    with pgbouncer(tmp_path, server_url, "transaction") as url:
        found = await check(url, "database.pooler")
        assert found.severity is Severity.PROBLEM
        assert "pool_mode = session" in found.findings[0].todo


def test_a_direct_connection_shares_no_sessions(server_url: str) -> None:
    assert not shares_sessions(server_url)
