"""The PostgreSQL server of the test run: a template migrated once, copied for every test."""

import itertools
import os
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from store import embedded
from store.migrate import migrate

_TEMPLATE = "tidemark_template"

# No test takes the power away, and what PostgreSQL has written survives its own end without these. With them, most of
# the time of a new database and of a commit is spent on waiting for the disk.
WITHOUT_POWER_CUTS = ("fsync=off", "full_page_writes=off")


class Template:
    """A migrated database that others are copied from.

    Uses TIDEMARK_TEST_DATABASE_URL when it is set (a superuser's URL), and the embedded server otherwise.
    """

    def __init__(self, directory: Path, server_url: str | None = None) -> None:
        """`server_url`: a superuser's, of a server to use instead of either."""
        self._numbers = itertools.count()
        given = server_url or os.environ.get("TIDEMARK_TEST_DATABASE_URL")
        self._embedded = not given
        self._server_url = given or embedded.start(directory)
        if self._embedded:
            for setting in WITHOUT_POWER_CUTS:
                self._execute(f"ALTER SYSTEM SET {setting}")
            self._execute("SELECT pg_reload_conf()")
        self._name = f"{_TEMPLATE}_{os.getpid()}"
        self._execute(f"CREATE DATABASE {self._name}")
        migrate(self._url(self._name))
        self._copies: list[str] = []

    def fresh_database(self) -> str:
        """A new copy of the template; returns its URL."""
        name = f"tidemark_test_{os.getpid()}_{next(self._numbers)}"
        # FILE_COPY clones a small template faster than the default, which logs every block.
        self._execute(f"CREATE DATABASE {name} TEMPLATE {self._name} STRATEGY FILE_COPY")
        self._copies.append(name)
        return self._url(name)

    def close(self) -> None:
        """Drops every database that was made on a server that goes on; the embedded one goes with its directory."""
        if self._embedded:
            return
        for name in [*self._copies, self._name]:
            self._execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _url(self, name: str) -> str:
        return make_url(self._server_url).set(database=name).render_as_string(hide_password=False)

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            connection.execute(statement.encode())
