"""The command `tidemark up`: server and notifier, watched, on one machine."""

import asyncio
import contextlib
import os
import sys
from base64 import b64encode
from collections.abc import Mapping, Sequence

import click

from cli.console import LastingProgress, Problem, bad, good, named, quiet
from cli.notify import RUNNING
from cli.processes import Child, NotStarted, environment
from cli.serve import LISTENING
from cli.settings import configuration, configure_logs, prepared_database, unreachable
from runtime.backoff import Backoff
from runtime.configuration import Configuration
from runtime.master_keys import KeyFileUnusable, master_keys
from runtime.signals import on_stop
from store.identity import keys
from store.postgres.addresses import shown
from store.postgres.database import Database, DatabaseUnavailable

FIRST_PAUSE = 1.0  # seconds before a child that ended is started again; doubled from time to time
LONGEST_PAUSE = 30.0  # seconds
HEALTHY_AFTER = 60.0  # seconds of running after which the next pause is the first again

_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}


@click.command()
def up() -> None:
    """Run server and notifier on this machine.

    The database is the one of TIDEMARK_DATABASE_URL, or else an embedded PostgreSQL server with its data under
    .tidemark. Each process that ends is started again, the embedded database too. Ctrl-C, SIGTERM and a terminal that
    closes drain both processes; asked once more, they end at once.
    """
    settings = configuration()
    configure_logs(settings)
    say = LastingProgress()
    say(f"{quiet('database')}  {_database_words(settings)}")
    url = prepared_database(settings, _DatabaseWords(say))
    try:
        asyncio.run(_Up(settings, url, say).run())
    except KeyFileUnusable as error:
        raise Problem(str(error)) from None
    except NotStarted as error:
        raise Problem(str(error), ["what it said itself stands above"]) from None
    except DatabaseUnavailable as error:
        raise unreachable(url, error) from None


def _database_words(settings: Configuration) -> str:
    if settings.database_url is not None:
        return shown(settings.database_url)
    return f"embedded PostgreSQL, data under {named(str(settings.data_directory))}"


class _DatabaseWords:
    """Says what happens to the embedded database."""

    def __init__(self, say: LastingProgress) -> None:
        self._say = say

    def database_ended(self, last_words: Sequence[str], pause: float) -> None:
        """It ended; its log has the reason."""
        for line in last_words:
            self._say(f"{quiet('database')}  {line}")
        self._say(f"{bad('the database ended; its last words stand above')}; starting it again in {pause:g} s")

    def database_runs_again(self) -> None:
        """It takes connections."""
        self._say(good("the database runs again"))


class _Up:
    """The two children, and everything that is said of them."""

    def __init__(self, settings: Configuration, url: str, say: LastingProgress) -> None:
        self._settings = settings
        self._url = url
        self._say = say
        self._stopping = asyncio.Event()
        child_environment = environment(_child_settings(settings, url), inherit=True)
        self._server = Child("server", ["serve"], child_environment, LISTENING)
        self._notifier = Child("notifier", ["notify"], child_environment, RUNNING)

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
        self._say(quiet("stopped"))

    async def _start(self) -> None:
        await asyncio.gather(self._server.start(), self._notifier.start())
        # Started again, it comes back where callers know it, on a port of its own choice too.
        self._server.environment["TIDEMARK_LISTEN"] = self._server.told
        await self._say_where()

    async def _keep(self, child: Child) -> None:
        """Starts the child again whenever it ends, until everything stops."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE, random_part=0.0)
        while True:
            since = loop.time()
            code = await child.wait()
            if loop.time() - since > HEALTHY_AFTER:
                backoff.reset()
            while not self._stopping.is_set():
                pause = backoff.next()
                self._say(f"{bad(f'the {child.name} {child.ended(code)}')}; starting it again in {pause:g} s")
                await self._pause(pause)
                if self._stopping.is_set():
                    break
                try:
                    await child.start()
                except NotStarted:
                    code = await child.wait()
                    continue
                self._say(good(f"the {child.name} runs again"))
                break
            if self._stopping.is_set():
                return

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _on_signal(self) -> None:
        if not self._stopping.is_set():
            self._say("\n" + quiet("draining; once more ends it at once"))
        self._stopping.set()
        for child in (self._server, self._notifier):
            child.ask_to_stop()

    async def _say_where(self) -> None:
        address = self._server.told
        host, _, port = address.rpartition(":")
        reachable = f"{_EVERY_ADDRESS.get(host, host)}:{port}"
        database = Database(self._url, 1)
        try:
            async with database.transaction() as connection:
                locked = await keys.any_key_exists(connection)
        finally:
            await database.close()
        self._say(f"{quiet('server')}    listening on {named(address)}")
        self._say(f"{quiet('notifier')}  running")
        if locked:
            callers = "need an API key: `tidemark keys create --organization NAME` makes one"
        else:
            callers = "on this machine are taken for the organization `default`; no key exists"
        self._say(f"{quiet('callers')}   {callers}")
        if self._settings.reflection:
            credential = "-H 'authorization: Bearer KEY' " if locked else ""
            call = f"grpcurl -plaintext {credential}{reachable} tidemark.v1.AlertService/ListAlerts"
            self._say(f"{quiet('try')}       {call}")
        self._say(quiet("Ctrl-C drains and stops") + "\n")


def _child_settings(settings: Configuration, url: str) -> Mapping[str, str]:
    """What the children are told beyond what we were."""
    # The embedded server belongs to us: the children come and go, it stays.
    told = {"TIDEMARK_DATABASE_URL": url}
    if settings.database_url is None:
        # With a URL they take the database for somebody else's, and would look for no key beside it.
        secret_keys = master_keys(settings)
        told["TIDEMARK_SECRET_KEYS"] = ",".join(f"{name}:{b64encode(key).decode()}" for name, key in secret_keys)
    defaults = {
        "TIDEMARK_LOG_FORMAT": "text" if sys.stderr.isatty() else "json",
        # Nobody balances load on this machine; there is no one to wait for.
        "TIDEMARK_PROPAGATION_DELAY_SECONDS": "0",
    }
    return {**{name: value for name, value in defaults.items() if not os.environ.get(name)}, **told}
