"""Fixtures of every ring."""

import atexit
import gc
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.databases import WITHOUT_POWER_CUTS, Template
from tests.support.system_postgres import system_postgres
from tests.support.time_limit import (
    pytest_configure,
    pytest_runtest_call,
    pytest_runtest_setup,
    pytest_runtest_teardown,
)

__all__ = ["pytest_configure", "pytest_runtest_call", "pytest_runtest_setup", "pytest_runtest_teardown"]


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
    """Freezes the objects of all imports: otherwise each full garbage collection would walk them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def template(request: pytest.FixtureRequest) -> Iterator[Template]:
    """The migrated template database of this test process."""
    if request.config.getoption("--postgres") == "system":
        with system_postgres("max_connections=200", *WITHOUT_POWER_CUTS) as url:
            yield Template(Path(), url)
        return
    # Not below pytest's own folder: a later run would remove it as an old one while this run still uses it.
    directory = tempfile.mkdtemp(prefix="tidemark-test-")
    # Registered before the server's own exit handler, and so run after it: the server has to stop first.
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    template = Template(Path(directory))
    yield template
    template.close()
