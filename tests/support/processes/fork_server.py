"""The process that `tests.support.processes.forked` starts: it has imported the commands, and forks for each request.

It runs as a file, with the number of its socket as its argument, and imports nothing of the tests: what it forks has
the modules that an executed command would have.
"""

import contextlib
import gc
import json
import os
import random
import select
import signal
import socket
import sys
from importlib import import_module
from typing import Any

MESSAGE = 2**18  # bytes of a request, which carries an environment
STREAMS = 3  # standard input, output and error

# Of the commands that tests start most often. Their import makes no thread and leaves no file open.
MODULES = (
    "cli.serving.serve",
    "cli.serving.notify",
    "cli.serving.migrate",
    "cli.watch.command",
    "cli.listen.command",
    "cli.explain.command",
    "cli.replay.command",
    "cli.enforcement.check",
    "cli.organizations.keys",
    "cli.resources.commands",
    "cli.serving.health",
)


def serve(control: socket.socket) -> None:
    """Forks until the other end of the socket is closed. It returns in each forked process, to become the command.

    A request has the arguments, the environment and the folder of the command, its three streams, and a socket. That
    gets the id of the process with a handle (pidfd), and its exit code when it has ended.
    """
    given = dict(os.environ)
    gc.disable()
    for module in MODULES:
        import_module(module)
    generators = [found for found in gc.get_objects() if isinstance(found, random.Random)]
    gc.freeze()  # the forked processes share these objects until they write to them, and a search writes to each
    added = {name: value for name, value in os.environ.items() if given.get(name) != value}  # by imports
    poll = select.poll()
    poll.register(control, select.POLLIN)
    running: dict[int, tuple[int, socket.socket]] = {}
    while True:
        for ready, _ in poll.poll():
            if ready != control.fileno():
                poll.unregister(ready)
                _report(ready, *running.pop(ready))
                continue
            message, (*streams, number) = _received(control)
            status = socket.socket(fileno=number)
            child = os.fork()
            if not child:
                for one in (control, status, *(status for _, status in running.values())):
                    one.detach()
                _become(json.loads(message), added, streams)
                for generator in generators:
                    generator.seed()
                return
            for stream in streams:
                os.close(stream)
            handle = os.pidfd_open(child)
            running[handle] = child, status
            poll.register(handle, select.POLLIN)
            try:
                socket.send_fds(status, [str(child).encode()], [handle])
            except BrokenPipeError:  # the test does not wait for it any more
                os.kill(child, signal.SIGKILL)


def _received(control: socket.socket) -> tuple[bytes, list[int]]:
    message, descriptors, _, _ = socket.recv_fds(control, MESSAGE, STREAMS + 1)
    if not message:
        os._exit(0)
    return message, descriptors


def _report(handle: int, child: int, status: socket.socket) -> None:
    """Sends how the process ended: its exit code, or the negative number of a signal."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(handle)
    with status, contextlib.suppress(BrokenPipeError):  # the test that started it may be over
        status.send(str(code).encode())


def _become(request: dict[str, Any], added: dict[str, str], streams: list[int]) -> None:
    """Gives this forked process what the command would have been started with, and nothing of the fork server."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(STREAMS, os.sysconf("SC_OPEN_MAX"))
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update({**added, **request["environment"]})
    sys.argv[1:] = request["arguments"]
    gc.enable()


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
    import_module("cli.main").main()
