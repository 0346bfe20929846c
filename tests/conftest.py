"""Fixtures of every ring."""

import atexit
import gc
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.serving.garbage_collection import reduce_garbage_collection
from tests.support import ignored_signals, time_limit
from tests.support.databases import FOR_TESTS, Template
from tests.support.event_loop import use_uvloop
from tests.support.memory import server_folder
from tests.support.randomness import hypothesis_seed, load_profile, seed_line
from tests.support.server.sharing import declare_marks
from tests.support.system_postgres import system_postgres
from tests.support.time_limit import pytest_runtest_call, pytest_runtest_setup, pytest_runtest_teardown

# Searches among surviving objects before one among all. A process of Tidemark keeps the few that are left over; a
# worker that runs thousands of tests would keep those of all its servers.
ALL_OBJECTS = 20

__all__ = ["hypothesis_seed", "pytest_runtest_call", "pytest_runtest_setup", "pytest_runtest_teardown"]


def pytest_configure(config: pytest.Config) -> None:
    """Prepares what tests need before their modules are imported."""
    gc.disable()  # until all tests are collected: it would search the growing modules and items again and again
    time_limit.pytest_configure(config)
    load_profile(config)
    declare_marks(config)
    use_uvloop()
    ignored_signals.heed()


def pytest_report_header(config: pytest.Config) -> str:
    """Adds the seed of random tests to the report."""
    return seed_line(config)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the choice of the PostgreSQL server that the tests run against."""
    parser.addoption(
        "--postgres",
        choices=("embedded", "system"),
        default="embedded",
        help="the embedded server, or the operating system's PostgreSQL with its package's own settings",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sorts long files first when several processes share the run, so that no process idles at the end."""
    if hasattr(config, "workerinput"):
        items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    if item.get_closest_marker("long") is not None:
        return 0
    ring = item.path.relative_to(Path(__file__).parent).parts[0]
    return {"acceptance": 1, "integration": 2}.get(ring, 3)


def pytest_collection_finish() -> None:
    """Collects garbage as rarely as the processes of Tidemark do: with Python's thresholds it takes a seventh of the
    CPU time. The objects of all imports are exempt.
    """
    reduce_garbage_collection()
    young, survivors, _ = gc.get_threshold()
    gc.set_threshold(young, survivors, ALL_OBJECTS)
    gc.enable()


@pytest.fixture(scope="session")
def template(request: pytest.FixtureRequest) -> Iterator[Template]:
    """The migrated template database of this test process."""
    if request.config.getoption("--postgres") == "system":
        with system_postgres("max_connections=200", *FOR_TESTS) as url:
            template = Template(Path(), url)
            yield template
            template.close()
        return
    # Not below pytest's own folder: a later run would remove it as an old one while this run still uses it.
    directory = server_folder()
    # Registered before the server's own exit handler, and so run after it: the server has to stop first.
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    template = Template(directory)
    yield template
    template.close()
