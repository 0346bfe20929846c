"""The command `tidemark notify`: one notifier process."""

import socket

import click
import uvloop

from cli.console import Problem
from cli.serving.allocator import use_one_arena
from cli.serving.garbage_collection import reduce_garbage_collection
from cli.serving.monitoring_options import metrics_listen_option, monitoring_socket_option
from cli.serving.parent import parent_option, stopping_with
from cli.serving.processes import RUNNING
from cli.serving.settings import configuration, configure_logs, maintained_database
from notifier.process import run
from runtime.clock import SystemClock
from runtime.configuration import Configuration
from runtime.master_keys import KeyFileUnusable
from runtime.monitoring.addresses import CannotMonitor
from runtime.trace_export import exported_traces
from store.postgres.database import Database


@click.command()
@metrics_listen_option
@monitoring_socket_option
@parent_option
def notify(metrics_listen: str | None, monitoring_socket: socket.socket | None, with_parent: int | None) -> None:
    """Run one notifier process.

    It sends notifications to webhooks, and logs to standard error. Any number of notifiers can share a database.
    SIGTERM, SIGINT, SIGHUP and SIGQUIT drain it.
    """
    settings = configuration(metrics_listen)
    configure_logs(settings)
    use_one_arena()
    reduce_garbage_collection()
    url = maintained_database(settings)
    try:
        with exported_traces("tidemark-notifier"):
            uvloop.run(_notify(settings, url, with_parent, monitoring_socket))
    except (KeyFileUnusable, CannotMonitor) as error:
        raise Problem(str(error)) from None


async def _notify(
    settings: Configuration, url: str, with_parent: int | None, monitoring_socket: socket.socket | None
) -> None:
    database = Database(url, settings.pool_size)
    async with stopping_with(with_parent):
        try:
            await run(
                settings,
                database,
                SystemClock(),
                on_start=lambda: click.echo(RUNNING),
                monitoring_socket=monitoring_socket,
            )
        finally:
            await database.close()
