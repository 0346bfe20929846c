"""Workers: several server processes that share one port, and the process that supervises them.

Each worker listens on the port itself (SO_REUSEPORT), and the system gives each new connection to one of them. So no
process is between a caller and its worker, and a worker that ends takes only its own connections with it.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from cli.console import Problem
from cli.serving.combined_port import combined_port
from cli.serving.console_child import OPENED, ConsoleChild
from cli.serving.parent import stopping_with
from cli.serving.processes import LISTENING, Child, NotStarted, child_environment
from cli.serving.settings import database_settings
from cli.serving.supervision import Supervisor, stop_timeout
from runtime.actions import LogAction
from runtime.configuration import Configuration
from server.listener import CannotListen, address_of

logger = logging.getLogger(__name__)


def run_workers(
    number: int,
    settings: Configuration,
    url: str,
    print_address: Callable[[str, int], None],
    with_parent: int | None,
    monitoring_socket: socket.socket | None = None,
    print_http_address: Callable[[str, int], None] = lambda host, port: None,
) -> None:
    """Runs so many workers on the configured address until a signal comes, and then drains them.

    print_address, print_http_address: called with host and port when all of them serve. monitoring_socket: for the
    health and metrics of all workers, beside the configured address. Raises CannotListen, CannotMonitor, and a
    Problem when a worker cannot start.
    """
    with ExitStack() as reserved:
        host, http = settings.listen_host, settings.http_listen
        port = reserved.enter_context(_reserved(host, settings.listen_port))
        listen = {
            "TIDEMARK_LISTEN": address_of(host, port),
            "TIDEMARK_METRICS_LISTEN": "",
            "TIDEMARK_CONSOLE_LISTEN": "",
        }
        if http is not None:
            http = (http[0], reserved.enter_context(_reserved(*http)))
            listen["TIDEMARK_HTTP_LISTEN"] = address_of(*http)
        environment = child_environment({**database_settings(settings, url), **listen}, inherit=True)
        children = {
            str(worker): Child(f"worker {worker}", ["serve", "--worker", str(worker)], environment, LISTENING)
            for worker in range(1, number + 1)
        }
        console = None
        if settings.console_listen is not None:
            console = ConsoleChild(next(iter(children.values())), settings, address_of(*settings.console_listen))
        every = [*children.values(), *([] if console is None else [console])]
        supervisor = Supervisor(every, _LogReporter(), stop_timeout(settings))

        async def started() -> None:
            if console is not None:
                logger.info("%s%s", OPENED, console.ready_value, extra={"action": LogAction.CONSOLE})
            if http is not None:
                print_http_address(*http)
            print_address(host, port)

        async def run() -> None:
            async with (
                stopping_with(with_parent),
                # Each connection is given to one worker, and to another one when it has ended.
                combined_port(settings, monitoring_socket, "worker", children, needs_all=False) as monitoring_port,
            ):
                if monitoring_port is not None:
                    logger.info(
                        "monitoring of all workers on port %d",
                        monitoring_port,
                        extra={"action": LogAction.MONITORING, "monitoring_port": monitoring_port},
                    )
                await supervisor.run(started)

        try:
            asyncio.run(run())
        except NotStarted as error:
            raise Problem(str(error), ["its own messages are above"]) from None


@contextmanager
def _reserved(host: str, port: int) -> Iterator[int]:
    """Keeps the port for the workers of this process; yields its number, a free one for 0. Raises CannotListen.

    The socket does not listen, so it gets no connections; the system gives its port to no other socket.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # With SO_REUSEPORT, the workers of another service would not be in the way: they would share its calls.
        with socket.socket(family, socket.SOCK_STREAM) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(address)
            alone.listen(1)
            address = alone.getsockname()
        reserving = socket.socket(family, socket.SOCK_STREAM)
        reserving.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserving.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserving.bind(address)
    except OSError as error:
        raise CannotListen.on(address_of(host, port)) from error
    with reserving:
        yield int(reserving.getsockname()[1])


class _LogReporter:
    """Logs what happens to the workers."""

    def ended(self, name: str, ending: str, pause: float) -> None:
        """See `Reporter`."""
        logger.error(
            "%s %s; starting it again in %g s",
            name,
            ending,
            pause,
            extra={"action": LogAction.WORKER_ENDED, "pause": pause},
        )

    def runs_again(self, name: str) -> None:
        """See `Reporter`."""
        logger.info("%s runs again", name, extra={"action": LogAction.WORKER_RUNS_AGAIN})

    def draining(self) -> None:
        """See `Reporter`."""
        logger.info("draining the workers; a second signal ends them at once", extra={"action": LogAction.DRAIN})
