"""A PostgreSQL of the operating system as its package leaves it: JIT on, default planner costs and memory.

The embedded server has other settings and may be newer. Tests that run on both find code that depends on them.
"""

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.support.memory import server_folder

# Debian and Ubuntu keep each major version in a folder of its own.
_VERSIONS = sorted(Path("/usr/lib/postgresql").glob("[0-9]*/bin"), key=lambda path: int(path.parent.name))
START_TIMEOUT = 60  # seconds
_ENVIRONMENT = {"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"}


def binaries() -> Path:
    """The folder of the oldest supported version that is installed; the test is skipped when there is none."""
    usable = [path for path in _VERSIONS if int(path.parent.name) >= 15 and (path / "initdb").exists()]
    if not usable:
        pytest.skip("no PostgreSQL 15 or newer of the operating system is installed (Debian: apt install postgresql)")
    return usable[0]


@contextmanager
def system_postgres(*settings: str) -> Iterator[str]:
    """Runs a server with the package's defaults, plus `settings` such as `jit=off`; yields its superuser's URL."""
    found = binaries()
    folder = server_folder()
    try:
        subprocess.run(
            [found / "initdb", "--pgdata", folder / "data", "--auth=trust", "--username=postgres", "--no-sync"],
            check=True,
            user=_give_away(folder),
            cwd=folder,
            stdout=subprocess.DEVNULL,
            timeout=START_TIMEOUT,
            env=_ENVIRONMENT,
        )
        with postgres_of(folder, *settings) as url:
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres_of(folder: Path, *settings: str) -> Iterator[str]:
    """Runs a server on the data in folder/data; yields its superuser's URL."""
    user = _give_away(folder)
    options = [f"-c{setting}" for setting in ("listen_addresses=", f"unix_socket_directories={folder}", *settings)]
    with (folder / "log").open("wb") as log:
        # PostgreSQL ends with this process, however this process ends.
        server = subprocess.Popen(
            ["setpriv", "--pdeathsig", "QUIT", binaries() / "postgres", "-D", folder / "data", *options],
            user=user,
            cwd=folder,
            stdout=log,
            stderr=log,
            env=_ENVIRONMENT,
        )
    url = f"postgresql://postgres@/postgres?host={folder}"
    try:
        _wait(url, server, folder / "log")
        yield url
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait(START_TIMEOUT)


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            psycopg.connect(url, connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, f"PostgreSQL does not answer:\n{log.read_text()}"
            time.sleep(0.05)


def _give_away(folder: Path) -> str | None:
    """Gives a folder to a user that PostgreSQL accepts: it refuses to run as root. None: the present user."""
    if os.geteuid() != 0:
        return None
    owner = pwd.getpwnam("postgres")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner.pw_uid, owner.pw_gid, follow_symlinks=False)
    return owner.pw_name
