"""The command `tidemark up`: runs a server and a notifier on one machine, and starts them again when they end."""

import asyncio
import contextlib
import os
import sys
from base64 import b64encode
from collections.abc import Mapping, Sequence

import click

from cli.console import DurableProgress, Problem, bad, good, named, quiet
from cli.processes import LISTENING, RUNNING, Child, NotStarted, child_environment, describe_exit
from cli.settings import configuration, configure_logs, prepared_database, unreachable_database
from runtime.backoff import Backoff
from runtime.configuration import Configuration
from runtime.master_keys import KeyFileUnusable, master_keys
from runtime.signals import on_stop
from store.identity import keys
from store.postgres.addresses import shown
from store.postgres.database import Database, DatabaseUnavailable

FIRST_PAUSE = 1.0  # seconds before a child that ended is started again; doubled after each failure
LONGEST_PAUSE = 30.0  # seconds
HEALTHY_AFTER = 60.0  # seconds that a child must run until its next pause is FIRST_PAUSE again

_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}


@click.command()
def up() -> None:
    """Run a server and a notifier on this machine.

    The database is that of TIDEMARK_DATABASE_URL, or an embedded PostgreSQL server with its data under .tidemark.
    When a process ends, it is started again; so is the embedded database. Ctrl-C, SIGTERM and a terminal that closes
    drain both processes; a second signal ends them at once.
    """
    settings = configuration()
    configure_logs(settings)
    report = DurableProgress()
    report(f"{quiet('database')}  {_describe_database(settings)}")
    url = prepared_database(settings, _DatabaseReporter(report))
    try:
        asyncio.run(_Up(settings, url, report).run())
    except KeyFileUnusable as error:
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


class _Up:
    """Runs the two child processes, and prints what happens to them."""

    def __init__(self, settings: Configuration, url: str, report: DurableProgress) -> None:
        self._settings = settings
        self._url = url
        self._report = report
        self._stopping = asyncio.Event()
        environment = child_environment(_child_settings(settings, url), inherit=True)
        self._server = Child("server", ["serve"], environment, LISTENING)
        self._notifier = Child("notifier", ["notify"], environment, RUNNING)

    async def run(self) -> None:
        on_stop(self._on_signal)
        try:
            started = asyncio.create_task(self._start(), name="start")
            stopping = asyncio.create_task(self._stopping.wait(), name="stopping")
            await asyncio.wait({started, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not self._stopping.is_set():
                await started
                await asyncio.gather(self._keep(self._server), self._keep(self._notifier))
            started.cancel()
            stopping.cancel()
            await asyncio.gather(started, stopping, return_exceptions=True)
        finally:
            await asyncio.gather(self._server.stop(), self._notifier.stop())
        self._report(quiet("stopped"))

    async def _start(self) -> None:
        await asyncio.gather(self._server.start(), self._notifier.start())
        # When the server is started again, it must listen on the address that its callers use, also after port 0.
        self._server.environment["TIDEMARK_LISTEN"] = self._server.ready_value
        await self._print_addresses()

    async def _keep(self, child: Child) -> None:
        """Starts the child again each time it ends, until this command stops."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE, random_part=0.0)
        while True:
            started = loop.time()
            code = await child.wait()
            if loop.time() - started > HEALTHY_AFTER:
                backoff.reset()
            while not self._stopping.is_set():
                pause = backoff.next()
                self._report(f"{bad(f'the {child.name} {describe_exit(code)}')}; starting it again in {pause:g} s")
                await self._pause(pause)
                if self._stopping.is_set():
                    break
                try:
                    await child.start()
                except NotStarted:
                    code = await child.wait()
                    continue
                self._report(good(f"the {child.name} runs again"))
                break
            if self._stopping.is_set():
                return

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _on_signal(self) -> None:
        if not self._stopping.is_set():
            self._report("\n" + quiet("draining; a second signal ends it at once"))
        self._stopping.set()
        for child in (self._server, self._notifier):
            child.request_stop()

    async def _print_addresses(self) -> None:
        address = self._server.ready_value
        host, _, port = address.rpartition(":")
        reachable = f"{_EVERY_ADDRESS.get(host, host)}:{port}"
        database = Database(self._url, 1)
        try:
            async with database.transaction() as connection:
                needs_key = await keys.any_key_exists(connection)
        finally:
            await database.close()
        self._report(f"{quiet('server')}    listening on {named(address)}")
        self._report(f"{quiet('notifier')}  running")
        if needs_key:
            callers = "need an API key: create one with `tidemark keys create --organization NAME`"
        else:
            callers = "on this machine belong to the organization `default`, because no key exists"
        self._report(f"{quiet('callers')}   {callers}")
        if self._settings.reflection:
            credential = "-H 'authorization: Bearer KEY' " if needs_key else ""
            call = f"grpcurl -plaintext {credential}{reachable} tidemark.v1.AlertService/ListAlerts"
            self._report(f"{quiet('try')}       {call}")
        self._report(quiet("Ctrl-C drains and stops") + "\n")


def _child_settings(settings: Configuration, url: str) -> Mapping[str, str]:
    """The settings of the children in addition to those of this process."""
    # With the URL, the children do not start or stop the embedded server; this process does.
    required = {"TIDEMARK_DATABASE_URL": url}
    if settings.database_url is None:
        # With a URL, the children do not read the key file in the folder of the embedded server.
        secret_keys = master_keys(settings)
        required["TIDEMARK_SECRET_KEYS"] = ",".join(f"{name}:{b64encode(key).decode()}" for name, key in secret_keys)
    defaults = {
        "TIDEMARK_LOG_FORMAT": "text" if sys.stderr.isatty() else "json",
        # No load balancer has to notice that the server drains.
        "TIDEMARK_PROPAGATION_DELAY_SECONDS": "0",
    }
    return {**{name: value for name, value in defaults.items() if not os.environ.get(name)}, **required}
