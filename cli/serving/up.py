"""The command `tidemark up`: runs a server and a notifier on one machine, and starts them again when they end."""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence

import click

from cli.console import DurableProgress, Problem, bad, good, named, quiet
from cli.serving.combined_port import combined_port
from cli.serving.console_child import ConsoleChild, default_listen, reachable, why_not, written
from cli.serving.console_option import console_options
from cli.serving.http_options import http_listen_option
from cli.serving.monitoring_options import metrics_listen_option
from cli.serving.ports import check_ports
from cli.serving.processes import LISTENING, RUNNING, Child, NotStarted, child_environment
from cli.serving.settings import (
    configuration,
    configure_logs,
    database_settings,
    maintained_database,
    unreachable_database,
)
from cli.serving.supervision import STOP_MARGIN, Supervisor, stop_timeout
from cli.serving.worker_option import workers_option
from runtime.configuration import Configuration
from runtime.master_keys import KeyFileUnusable
from runtime.monitoring.addresses import CannotMonitor, metrics_url
from store.embedded.disk import MB
from store.identity import keys
from store.postgres.addresses import shown
from store.postgres.database import Database, DatabaseUnavailable


@click.command()
@workers_option
@metrics_listen_option
@http_listen_option
@console_options
def up(
    workers: int, metrics_listen: str | None, http_listen: str | None, console_listen: str | None, console: bool
) -> None:
    """Run a server, a notifier and the console on this machine.

    The database is that of TIDEMARK_DATABASE_URL, or an embedded PostgreSQL server with its data under .tidemark.
    When a process ends, it is started again; so is the embedded database. Ctrl-C, SIGTERM and a terminal that closes
    drain the processes; a second signal ends them at once.
    """
    settings = configuration(metrics_listen, http_listen, console_listen)
    configure_logs(settings)
    check_ports(settings, with_console=console)
    report = DurableProgress()
    report(f"{quiet('database')}  {_describe_database(settings)}")
    url = maintained_database(settings, _DatabaseReporter(report))
    try:
        asyncio.run(_Up(settings, url, workers, report, with_console=console).run())
    except (KeyFileUnusable, CannotMonitor) as error:
        raise Problem(str(error)) from None
    except NotStarted as error:
        raise Problem(str(error), ["its own messages are above"]) from None
    except DatabaseUnavailable as error:
        raise unreachable_database(url, error) from None


def _describe_database(settings: Configuration) -> str:
    if settings.database_url is not None:
        return shown(settings.database_url)
    return f"embedded PostgreSQL, data under {named(str(settings.data_directory))}"


class _DatabaseReporter:
    """Prints what happens to the embedded database."""

    def __init__(self, report: DurableProgress) -> None:
        self._report = report

    def database_ended(self, last_words: Sequence[str], pause: float) -> None:
        """It ended. last_words: the last lines of its log."""
        for line in last_words:
            self._report(f"{quiet('database')}  {line}")
        self._report(
            f"{bad('the database ended; the last lines of its log are above')}; starting it again in {pause:g} s"
        )

    def database_runs_again(self) -> None:
        """It accepts connections again."""
        self._report(good("the database runs again"))

    def disk_runs_full(self, free: int, total: int) -> None:
        """Its disk runs full; bytes."""
        self._report(
            f"{bad('the disk of the database runs full')}: {free // MB:,} of {total // MB:,} MB are free;"
            " when it is full, nothing can be stored until there is space"
        )

    def disk_has_space(self, free: int) -> None:
        """Its disk has space again; bytes."""
        self._report(good(f"the disk of the database has space again: {free // MB:,} MB are free"))


class _Up:
    """Runs the child processes, and prints what happens to them."""

    def __init__(
        self, settings: Configuration, url: str, workers: int, report: DurableProgress, *, with_console: bool
    ) -> None:
        self._settings = settings
        self._url = url
        self._report = report
        self._monitoring_port: int | None = None
        environment = child_environment(_child_settings(settings, url), inherit=True)
        if settings.http_listen is not None:
            environment["TIDEMARK_HTTP_LISTEN"] = written(*settings.http_listen)
        several = ["--workers", str(workers)] if workers > 1 else []
        self._server = Child("server", ["serve", *several], environment, LISTENING)
        self._notifier = Child("notifier", ["notify"], environment, RUNNING)
        self._no_console = "" if with_console else "not wanted"
        self._console: Child | None = None
        if with_console:
            self._no_console = why_not(settings)
        if not self._no_console:
            address = settings.console_listen
            listen = default_listen() if address is None else written(*address)
            self._console = ConsoleChild(self._server, settings, listen)

    async def run(self) -> None:
        # A server with workers ends those that do not stop in time.
        timeout = stop_timeout(self._settings) + STOP_MARGIN
        children = {"server": self._server, "notifier": self._notifier}
        async with combined_port(self._settings, None, "process", children, needs_all=True) as self._monitoring_port:
            every = [*children.values(), *([] if self._console is None else [self._console])]
            await Supervisor(every, self, timeout).run(self._on_started)
        self._report(quiet("stopped"))

    def ended(self, name: str, ending: str, pause: float) -> None:
        """See `Reporter`."""
        self._report(f"{bad(f'the {name} {ending}')}; starting it again in {pause:g} s")

    def runs_again(self, name: str) -> None:
        """See `Reporter`."""
        self._report(good(f"the {name} runs again"))

    def draining(self) -> None:
        """See `Reporter`."""
        self._report("\n" + quiet("draining; a second signal ends it at once"))

    async def _on_started(self) -> None:
        # When the server is started again, it must listen on the address that its callers use, also after port 0.
        self._server.environment["TIDEMARK_LISTEN"] = self._server.ready_value
        if self._server.http_address:
            self._server.environment["TIDEMARK_HTTP_LISTEN"] = self._server.http_address
        await self._print_addresses()

    async def _print_addresses(self) -> None:
        address = self._server.ready_value
        database = Database(self._url, 1)
        try:
            async with database.transaction() as connection:
                needs_key = await keys.any_key_exists(connection)
        finally:
            await database.close()
        self._report(f"{quiet('server')}    listening on {named(address)}")
        if self._server.http_address:
            scheme = "http" if self._settings.tls_certificate is None else "https"
            self._report(f"{quiet('http')}      {named(f'{scheme}://{self._server.http_address}')}")
        self._report(f"{quiet('notifier')}  running")
        if self._console is not None:
            self._report(f"{quiet('console')}   {named(self._console.ready_value)}")
        elif self._no_console != "not wanted":
            self._report(f"{quiet('console')}   {self._no_console}")
        if self._settings.metrics_listen is not None:
            url = metrics_url(self._settings.metrics_listen[0], self._monitoring_port or 0)
            self._report(f"{quiet('metrics')}   {named(url)}")
        if needs_key:
            callers = "need an API key: create one with `tidemark keys create --organization NAME`"
        else:
            callers = "on this machine belong to the organization `default`, because no key exists"
        self._report(f"{quiet('callers')}   {callers}")
        if self._settings.reflection:
            credential = "-H 'authorization: Bearer KEY' " if needs_key else ""
            call = f"{credential}{reachable(address)} tidemark.v1.AlertService/ListAlerts"
            self._report(f"{quiet('try')}       grpcurl {grpcurl_tls(self._settings)} {call}")
        self._report(quiet("Ctrl-C drains and stops") + "\n")


def grpcurl_tls(settings: Configuration) -> str:
    """The options of grpcurl for the port. Only the operator knows who has signed the certificates."""
    if settings.tls_certificate is None:
        return "-plaintext"
    return "-cacert FILE" if settings.tls_client_ca is None else "-cacert FILE -cert FILE -key FILE"


def _child_settings(settings: Configuration, url: str) -> Mapping[str, str]:
    """The settings of the children in addition to those of this process."""
    defaults = {
        "TIDEMARK_LOG_FORMAT": "text" if sys.stderr.isatty() else "json",
        # No load balancer has to notice that the server drains.
        "TIDEMARK_PROPAGATION_DELAY_SECONDS": "0",
    }
    unset = {name: value for name, value in defaults.items() if not os.environ.get(name)}
    # The parent has the port, and shows both.
    return {**unset, **database_settings(settings, url), "TIDEMARK_METRICS_LISTEN": "", "TIDEMARK_CONSOLE_LISTEN": ""}
