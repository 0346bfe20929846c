"""The monitoring port of a parent process: it shows its child processes together."""

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from cli.serving.processes import Child
from runtime.configuration import Configuration
from runtime.monitoring.addresses import addresses


@asynccontextmanager
async def combined_port(
    settings: Configuration,
    inherited: socket.socket | None,
    label: str,
    children: Mapping[str, Child],
    *,
    needs_all: bool,
) -> AsyncIterator[int | None]:
    """Shows the children on the configured address and the inherited socket while the block runs; yields the port.

    Does nothing, and yields None, when there is neither.

    The children must not have started: each gets a socket. children: by the value of `label` that their series get.
    needs_all: this process is ready when all children are; otherwise one suffices. Raises CannotMonitor.
    """
    shown_at = addresses(settings.metrics_listen, inherited)
    if not shown_at:
        yield None
        return
    # Here, because few parents have the port: aiohttp takes more time and memory than all else that they import.
    import aiohttp

    from runtime.monitoring.combined import CombinedProcesses, Member
    from runtime.monitoring.instruments import Instruments
    from runtime.monitoring.port import monitoring_port
    from runtime.monitoring.process import process_metrics
    from store.embedded.monitoring import embedded_metrics

    async with AsyncExitStack() as stack:
        members = []
        for value, child in children.items():
            child.monitoring = stack.enter_context(_listening_socket())
            port = child.monitoring.getsockname()[1]
            members.append(Member(label, value, port, child.has_started))
        # A connection that was kept would be one to a child that has ended since.
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        instruments = Instruments()
        combined = CombinedProcesses(members, session, instruments, needs_all=needs_all)
        stack.enter_context(process_metrics(instruments))
        await stack.enter_async_context(embedded_metrics(instruments))
        yield await stack.enter_async_context(monitoring_port(shown_at, combined))


def _listening_socket() -> socket.socket:
    """A socket that listens on a free port of loopback.

    The parent keeps it, so a child that is started again listens on the same port.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    return listening
