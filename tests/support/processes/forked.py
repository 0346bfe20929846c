"""Commands as real processes, forked from a process that has imported their modules, which is most of a start's cost.

A forked process has its own id, session, environment and streams, gets its own signals, and ends with its own exit
code. What differs from an executed one: its parent, its line in a list of processes, and that the hashes of strings
are those of the fork server. A command is executed all the same where there are no handles of processes (Linux has
them), and with an environment that the loader, the C library, the interpreter or an import reads. Tests of these do
not use this module.
"""

import asyncio
import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process, SubprocessStreamProtocol
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import IO

from cli.serving.processes import Child
from runtime.configuration import PREFIX

PROGRAM = Path(__file__).with_name("fork_server.py")
ANSWER = 64  # bytes of an answer of the fork server, at most
LINE = 2**16  # bytes of a line that can be read, as of asyncio

Output = int | IO[bytes] | None  # as that of `asyncio.create_subprocess_exec`

# The start of the names of variables that are read before a command is.
_READ_EARLIER = ("GLIBC_", "GRPC_", "LANG", "LC_", "LD_", "MALLOC_", "OPENSSL_", "PROTOCOL_BUFFERS_", "PYTHON", "TZ")


class ForkServer:
    """The process that forks. It ends with this process, and so do the servers and notifiers that it has forked."""

    def __init__(self) -> None:
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", PROGRAM, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=self._environment,
                start_new_session=True,
            )
        atexit.register(self._end)

    @property
    def pid(self) -> int:
        """The parent of what it forks."""
        return self._process.pid

    def can_be(self, environment: Mapping[str, str]) -> bool:
        """Whether a process with that environment can be forked."""
        return _read_earlier(environment) == _read_earlier(self._environment)

    async def fork(self, arguments: Sequence[str], environment: Mapping[str, str], streams: list[int]) -> "_Forked":
        """Forks a process, in the folder of this one. streams: the descriptors of its three."""
        request = {"arguments": list(arguments), "environment": dict(environment), "folder": os.getcwd()}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(self._control, [json.dumps(request).encode()], [*streams, theirs.fileno()])
        try:
            await _readable(ours)
            answer, handles, _, _ = socket.recv_fds(ours, ANSWER, 1)
            assert answer, "the fork server has ended"
        except BaseException:
            ours.close()  # so that the fork server ends what it forks
            raise
        return _Forked(int(answer), handles[0], ours)

    def _end(self) -> None:
        self._control.close()
        self._process.wait()


@cache
def fork_server() -> ForkServer:
    """The one of this process."""
    return ForkServer()


class _Forked(asyncio.SubprocessTransport):
    """What an `asyncio.subprocess.Process` asks of the event loop, for a forked process."""

    def __init__(self, pid: int, handle: int, status: socket.socket) -> None:
        super().__init__()
        self.pipes: dict[int, asyncio.ReadTransport] = {}
        self._pid = pid
        self._handle = handle
        self._status = status
        self._code: int | None = None
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(status.fileno(), self._end)

    def _end(self) -> None:
        self._loop.remove_reader(self._status.fileno())
        with self._status:
            answer = self._status.recv(ANSWER)
        if not answer:  # the fork server was killed
            self.kill()
        os.close(self._handle)
        self._code = int(answer) if answer else -signal.SIGKILL
        self._ended.set()

    def get_pid(self) -> int:
        return self._pid

    def get_returncode(self) -> int | None:
        return self._code

    def get_pipe_transport(self, fd: int) -> asyncio.BaseTransport | None:
        return self.pipes.get(fd)

    def send_signal(self, number: int) -> None:
        if self._code is not None:
            raise ProcessLookupError
        # Not with its number, which another process may have once the fork server knows of the end.
        with contextlib.suppress(ProcessLookupError):  # it has ended, which this loop does not know yet
            signal.pidfd_send_signal(self._handle, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def _wait(self) -> int:
        await self._ended.wait()
        assert self._code is not None
        return self._code


class _Reading(asyncio.StreamReaderProtocol):
    """Reads a pipe, which is closed at its end."""

    def eof_received(self) -> bool:
        super().eof_received()
        return False  # otherwise uvloop would keep the pipe open until it is closed by the test


class ForkedChild(Child):
    """A command that is forked, if it can be."""

    async def _started(self, sockets: Sequence[int]) -> Process:
        if sockets or not _can_be_forked(self.environment):
            return await super()._started(sockets)
        parent = ("--with-parent", str(fork_server().pid))
        return await _forked((*self._arguments, *parent), self.environment, PIPE, self._log)


async def started(*arguments: str, stdout: Output = None, stderr: Output = None) -> Process:
    """Starts `tidemark` with these arguments, without input; forks it, if it can be."""
    if _can_be_forked(os.environ):
        return await _forked(arguments, os.environ, stdout, stderr)
    command = (sys.executable, "-P", "-m", "cli.main", *arguments)
    return await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=stdout, stderr=stderr)


def _can_be_forked(environment: Mapping[str, str]) -> bool:
    return hasattr(os, "pidfd_open") and fork_server().can_be(environment)


async def _forked(
    arguments: Sequence[str], environment: Mapping[str, str], stdout: Output, stderr: Output
) -> Process:
    loop = asyncio.get_running_loop()
    protocol = SubprocessStreamProtocol(LINE, loop)
    with contextlib.ExitStack() as files:
        outputs = {number: _output(number, output, files) for number, output in ((1, stdout), (2, stderr))}
        streams = [_descriptor(os.open(os.devnull, os.O_RDONLY), files), *(theirs for theirs, _ in outputs.values())]
        transport = await fork_server().fork(arguments, environment, streams)
    for number, (_, pipe) in outputs.items():
        if pipe is None:
            continue
        reader = asyncio.StreamReader(LINE)
        transport.pipes[number], _ = await loop.connect_read_pipe(partial(_Reading, reader), pipe)
        setattr(protocol, "stdout" if number == 1 else "stderr", reader)
    return Process(transport, protocol, loop)


def _output(number: int, output: Output, files: contextlib.ExitStack) -> tuple[int, IO[bytes] | None]:
    """The descriptor for a stream of the process, and this process's end of it if it is a pipe."""
    if output == PIPE:
        ours, theirs = os.pipe()
        return _descriptor(theirs, files), os.fdopen(ours, "rb", 0)
    if output is None:
        return number, None
    return (output if isinstance(output, int) else output.fileno()), None


def _descriptor(number: int, files: contextlib.ExitStack) -> int:
    files.callback(os.close, number)
    return number


async def _readable(one: socket.socket) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(one.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(one.fileno())


def _read_earlier(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_READ_EARLIER)}
