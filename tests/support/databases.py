"""The PostgreSQL server of the test run: a template migrated once, copied for every test."""

import asyncio
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

from engine.upkeep import Upkeep
from runtime.clock import ManualClock
from runtime.configuration import Configuration
from store import embedded
from store.embedded import binaries, cluster
from store.embedded.layout import Layout
from store.embedded.server_user import server_user
from store.postgres.database import Database
from tests.support.postgres.nodes import Nodes, workers

_TEMPLATE = "tidemark_template"

NOON = datetime(2026, 3, 15, 12, 0, tzinfo=UTC)  # the time of the tests' clock, in the middle of a month

# No test cuts the power, and written data survives a crash of PostgreSQL without fsync and full pages. With them, a
# new database and a commit mostly wait for the disk. The log stays small, because it may be in memory, and so do the
# buffers: each new and each dropped database searches all of them.
FOR_TESTS = ("fsync=off", "full_page_writes=off", "max_wal_size=256MB", "shared_buffers=128MB")


class Template:
    """A migrated database, the template of other databases.

    Uses TIDEMARK_TEST_DATABASE_URL when it is set (a superuser's URL), and the embedded server otherwise; see
    `tests.support.postgres.nodes` for a cluster.
    """

    def __init__(self, directory: Path, server_url: str | None = None) -> None:
        """`server_url`: a superuser's, of a server to use instead of either."""
        self._numbers = itertools.count()
        given = server_url or os.environ.get("TIDEMARK_TEST_DATABASE_URL")
        self._embedded = not given
        if self._embedded:
            _make_cluster(directory)
        # Its connections serve all tests: a new one costs as much as a fourth of a new database.
        self.nodes = Nodes(given or embedded.start(directory), workers() if given else [])
        self._name = f"{_TEMPLATE}_{os.getpid()}"
        self._copies: list[str] = []
        self.nodes.execute(f"CREATE DATABASE {self._name}")
        self.nodes.migrate(self._name)
        self._copy(f"{self._name}_months", self._name)
        # In a thread: pytest-asyncio owns the event loop of this thread.
        thread = Thread(target=asyncio.run, args=[_make_months(self._url(f"{self._name}_months"))])
        thread.start()
        thread.join()

    def fresh_database(self, *, months: bool = True) -> str:
        """A new copy of the template, which stays until the end; returns its URL.

        months: whether to create the partitions of a server that starts at NOON. These take as long as the copy.
        """
        return self._url(self._make(months))

    @contextmanager
    def lent_database(self, *, months: bool = True) -> Iterator[str]:
        """The URL of a new copy of the template, which is dropped after the block."""
        name = self._make(months)
        try:
            yield self._url(name)
        finally:
            self._copies.remove(name)
            self.nodes.drop(name)

    @contextmanager
    def empty_database(self) -> Iterator[str]:
        """The URL of a new database without tables, which is dropped after the block; of a cluster, no part of it."""
        name = f"tidemark_test_{os.getpid()}_{next(self._numbers)}"
        self.nodes.execute(f"CREATE DATABASE {name} STRATEGY FILE_COPY")
        try:
            yield self._url(name)
        finally:
            self.nodes.drop(name)

    def _make(self, months: bool) -> str:
        name = f"tidemark_test_{os.getpid()}_{next(self._numbers)}"
        self._copy(name, f"{self._name}_months" if months else self._name)
        return name

    def _copy(self, name: str, template: str) -> None:
        self.nodes.copy(name, template)
        self._copies.append(name)

    def close(self) -> None:
        """Drops the databases on a server that keeps running; the embedded server is deleted with its directory."""
        if not self._embedded:
            for name in [*self._copies, self._name]:
                self.nodes.drop(name)
        self.nodes.close()

    def _url(self, name: str) -> str:
        return self.nodes.urls_of(name)[0]


def _make_cluster(directory: Path) -> None:
    """Creates the data directory, with settings that take precedence over those for the machine."""
    layout = Layout(directory.absolute())
    layout.prepare()
    user = server_user(layout)
    cluster.ensure(layout, user, binaries.installation(layout, user))
    with (layout.data / "postgresql.auto.conf").open("a") as file:
        file.writelines("{} = '{}'\n".format(*setting.split("=")) for setting in FOR_TESTS)


async def _make_months(url: str) -> None:
    """Creates the partitions, as a server does that starts at NOON."""
    configuration = Configuration()
    database = Database(url)
    upkeep = Upkeep(database, ManualClock(NOON), configuration.retention, configuration.notification_retention)
    await upkeep.run_once()
    await database.close()
