"""A PostgreSQL of the operating system as its package leaves it: JIT on, default planner costs and memory.

The embedded server has settings of its own and may be newer. Tests that run here as well find what depends on them.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# Debian and Ubuntu keep each major version in a folder of its own.
_VERSIONS = sorted(Path("/usr/lib/postgresql").glob("[0-9]*/bin"), key=lambda path: int(path.parent.name))
START_TIMEOUT = 60  # seconds


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
    folder = Path(tempfile.mkdtemp(prefix="tidemark-pg-"))
    data = folder / "data"
    user = _prepare(folder)

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [str(found / program), *arguments],
            check=True,
            user=user,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            timeout=START_TIMEOUT,
            env={"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"},
        )

    options = ["-c listen_addresses=''", f"-k {folder}", *(f"-c {setting}" for setting in settings)]
    try:
        run("initdb", "--pgdata", str(data), "--auth=trust", "--username=postgres", "--no-sync")
        run("pg_ctl", "--pgdata", str(data), "--log", str(folder / "log"), "--wait", "-o", " ".join(options), "start")
        try:
            yield f"postgresql://postgres@/postgres?host={folder}"
        finally:
            run("pg_ctl", "--pgdata", str(data), "--mode", "immediate", "--wait", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prepare(folder: Path) -> str | None:
    """Gives the folder to a user that PostgreSQL accepts: it refuses to run as root. None: the present user."""
    if os.geteuid() != 0:
        return None
    owner = pwd.getpwnam("postgres")
    os.chown(folder, owner.pw_uid, owner.pw_gid)
    return owner.pw_name
