"""`tidemark up` as a real process on an embedded database of its own, and what tests ask of processes.

It is not the stack of `programs.py`: tests of the command line read what the command prints, without an event loop,
and may call the program of an installed wheel.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

TIDEMARK = [sys.executable, "-P", "-m", "cli.main"]
TIMEOUT = 60.0  # seconds for anything to happen


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """A process's environment with a data directory of the test's own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMARK_")}
    return {
        **inherited,
        "TIDEMARK_DATA_DIRECTORY": str(folder / "data"),
        "TIDEMARK_LISTEN": "127.0.0.1:0",
        **settings,
    }


def run(
    folder: Path, *arguments: str, tidemark: Sequence[str] = TIDEMARK, **settings: str
) -> "subprocess.CompletedProcess[str]":
    """Runs one command to its end. tidemark: how the program is called."""
    return subprocess.run(
        [*tidemark, *arguments],
        cwd=folder,
        env=environment(folder, **settings),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


class Up:
    """A running `tidemark up`.

    options: of the command; without one of the console there is none. tidemark: how the program is called. authority:
    the file of the one that signed the server's certificate, where the settings give it one for the name localhost.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        tidemark: Sequence[str] = TIDEMARK,
        authority: str | None = None,
        **settings: str,
    ) -> None:
        self.folder = folder
        self._authority = authority
        self._tidemark = tidemark
        self._log = (folder / "up.log").open("w")
        self.process = subprocess.Popen(
            [*tidemark, "up", *([] if "--console-listen" in options else ["--no-console"]), *options],
            cwd=folder,
            env=environment(folder, **settings),
            stderr=self._log,
            stdout=self._log,
        )
        self.address = self.wait_for(r"server +listening on (\S+)").group(1)
        self.wait_for("Ctrl-C drains and stops")

    def said(self) -> str:
        """Everything it wrote so far."""
        return (self.folder / "up.log").read_text()

    def wait_for(self, pattern: str) -> "re.Match[str]":
        """Waits until it has written that."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            found[:] = list(re.finditer(pattern, self.said()))
            return bool(found)

        eventually(look, self.said)
        return found[0]

    def children(self) -> dict[str, int]:
        """The process ids of server and notifier."""
        return {
            command: pid
            for pid, arguments in started_by(self.process.pid).items()
            for command in ("serve", "notify")
            if f"cli.main {command}" in arguments
        }

    def postmaster(self) -> int:
        """The process id of the embedded database; 0 while there is none."""
        file = self.folder / "data" / "postgres" / "postmaster.pid"
        try:
            return int(file.read_text().splitlines()[0])
        except (FileNotFoundError, IndexError):
            return 0

    def call(self, method: str, request: str) -> None:
        """Calls a method, such as AlertService/CreateAlert, with a foreign client. request: its message in JSON."""
        how, scheme = ["--http2-prior-knowledge"], "http"
        if self._authority is not None:
            how, scheme = ["--cacert", self._authority, "--servername", "localhost"], "https"
        buf = str(Path(sys.executable).parent / "buf")
        url = f"{scheme}://{self.address}/tidemark.v1.{method}"
        subprocess.run(
            [buf, "curl", *how, "--protocol", "grpc", "--data", request, url],
            check=True,
            timeout=TIMEOUT,
            capture_output=True,
        )

    def run(self, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        """Runs a client command against it."""
        return run(self.folder, *arguments, tidemark=self._tidemark, TIDEMARK_SERVER=self.address, **settings)

    def stop(self) -> None:
        """Ends it, whatever state it is in."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(TIMEOUT)
        self._log.close()


def eventually(happened: Callable[[], bool], said: Callable[[], str] = lambda: "") -> None:
    """Waits until `happened`."""
    end = time.monotonic() + TIMEOUT
    while not happened():
        assert time.monotonic() < end, f"it did not happen in {TIMEOUT} seconds\n{said()}"
        time.sleep(0.1)


def started_by(pid: int) -> dict[int, str]:
    """The processes that a process has started and that run, each with its command line."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,stat=,args=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    rows = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
    return {int(child): arguments for child, state, arguments in rows if not state.startswith("Z")}


def alive(pid: int) -> bool:
    """Whether a process runs (one that ended and was not waited for does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
