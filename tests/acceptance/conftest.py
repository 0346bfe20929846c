"""Fixtures of the acceptance ring: a database of the test's own, and real processes on it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.databases import Template
from tests.support.notifier.receiver import Receiver, running_receiver
from tests.support.processes.postgres import OwnServer, own_server
from tests.support.processes.programs import Programs, running

pytest.register_assert_rewrite("tests.support.processes.outage")


@pytest.fixture
def database_url(template: Template) -> Iterator[str]:
    """The URL of a migrated database of this test's own."""
    with template.lent_database(months=False) as url:
        yield url


@pytest.fixture
async def programs(database_url: str, tmp_path: Path) -> AsyncIterator[Programs]:
    """Starts servers and notifiers on the test's database."""
    async with running(database_url, tmp_path) as programs:
        yield programs


@pytest.fixture(scope="module")
async def module_programs(template: Template, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Programs]:
    """Starts servers and notifiers that the tests of a module share, on a database that they share.

    A start of a server costs 2 seconds of CPU time. A test that needs only an organization of its own shares one. A
    test that kills it starts it again.
    """
    with template.lent_database(months=False) as url:
        async with running(url, tmp_path_factory.mktemp("programs")) as programs:
            yield programs


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A webhook receiver on a free port of 127.0.0.1."""
    async with running_receiver() as receiver:
        yield receiver


@pytest.fixture
async def postgres() -> AsyncIterator[OwnServer]:
    """A database server of this test's own."""
    async with own_server() as server:
        yield server
