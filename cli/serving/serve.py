"""The command `tidemark serve`: one server process, or several on one port."""

import socket

import click
import uvloop

from cli.console import ConfigurationProblem, Problem
from cli.serving.allocator import use_one_arena
from cli.serving.console_child import why_not
from cli.serving.console_option import console_listen_option
from cli.serving.garbage_collection import reduce_garbage_collection
from cli.serving.http_options import http_front, http_listen_option
from cli.serving.monitoring_options import metrics_listen_option, monitoring_socket_option
from cli.serving.parent import parent_option, stopping_with
from cli.serving.processes import HTTP, LISTENING
from cli.serving.settings import (
    configuration,
    configure_logs,
    database_url,
    maintained_database,
    unreachable_database,
)
from cli.serving.worker_option import workers_option
from cli.serving.workers import run_workers
from runtime.clock import SystemClock
from runtime.configuration import Configuration
from runtime.forwarding import CannotListenFront
from runtime.master_keys import KeyFileUnusable
from runtime.monitoring.addresses import CannotMonitor
from runtime.trace_export import exported_traces
from server.authentication.api_keys import UnsafeListen
from server.calls.lifecycle import Shutdown
from server.event_loop import ServerLoop
from server.front import Front
from server.listener import CannotListen, ListenerEnded, address_of
from server.process import serve as run_server
from server.tls import BadCertificate
from store.postgres.database import Database, DatabaseUnavailable


@click.command()
@workers_option
@metrics_listen_option
@http_listen_option
@console_listen_option
@click.option("--worker", type=int, hidden=True)
@monitoring_socket_option
@parent_option
def serve(
    workers: int,
    metrics_listen: str | None,
    http_listen: str | None,
    console_listen: str | None,
    worker: int | None,
    monitoring_socket: socket.socket | None,
    with_parent: int | None,
) -> None:
    """Run a server: one process, or several on one port.

    It listens on TIDEMARK_LISTEN (and on TIDEMARK_HTTP_LISTEN, where that is set, for HTTP and JSON), prints that
    address when it serves, and logs to standard error. Any number of servers can share a database. SIGTERM, SIGINT,
    SIGHUP and SIGQUIT drain it.

    With --workers, this process starts so many server processes, starts each again that ends, and drains them
    together. Each connection belongs to one of them.

    With --console-listen, this process also starts a console, in the same way.
    """
    settings = configuration(metrics_listen, http_listen, console_listen)
    has_console = settings.console_listen is not None and worker is None
    if has_console and (problem := why_not(settings)):
        raise ConfigurationProblem(f"there can be no console: {problem}")
    front = http_front(settings, _print_http_address)
    configure_logs(settings, worker)
    use_one_arena()
    reduce_garbage_collection()
    url = maintained_database(settings) if worker is None else database_url(settings)
    try:
        if workers > 1 or has_console:
            run_workers(workers, settings, url, _print_address, with_parent, monitoring_socket, _print_http_address)
        else:
            serving = _serve(settings, url, with_parent, monitoring_socket, front, shares_port=worker is not None)
            with exported_traces("tidemark-server"):
                uvloop.run(serving, loop_factory=ServerLoop)
    except CannotListen as error:
        raise Problem(
            str(error), ["choose another address with TIDEMARK_LISTEN=HOST:PORT; port 0 takes any free port"]
        ) from None
    except CannotListenFront as error:
        raise Problem(str(error), ["choose another address with TIDEMARK_HTTP_LISTEN=HOST:PORT"]) from None
    except (UnsafeListen, KeyFileUnusable, BadCertificate, CannotMonitor) as error:
        raise Problem(str(error)) from None
    except ListenerEnded as error:
        raise Problem(
            str(error), ["start it again; `tidemark up`, `--workers` and service managers do so by themselves"]
        ) from None
    except DatabaseUnavailable as error:
        raise unreachable_database(url, error) from None


async def _serve(
    settings: Configuration,
    url: str,
    with_parent: int | None,
    monitoring_socket: socket.socket | None,
    front: Front | None,
    *,
    shares_port: bool,
) -> None:
    shutdown = Shutdown()
    shutdown.follow_signals()
    database = Database(url, settings.pool_size)
    async with stopping_with(with_parent):
        try:
            await run_server(
                settings,
                database,
                SystemClock(),
                shutdown,
                _print_address,
                shares_port=shares_port,
                monitoring_socket=monitoring_socket,
                front=front,
            )
        finally:
            await database.close()


def _print_http_address(host: str, port: int) -> None:
    click.echo(f"{HTTP}{address_of(host, port)}")


def _print_address(host: str, port: int) -> None:
    click.echo(f"{LISTENING}{address_of(host, port)}")
