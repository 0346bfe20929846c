"""Fixtures of the tests of the console: one stage for each module."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.console.stage import Stage, stage
from tests.support.databases import Template


@pytest.fixture(scope="module")
async def console(template: Template) -> AsyncIterator[Stage]:
    """A server and a console with the scenario; without a notifier."""
    with template.lent_database() as url:
        async with stage(url) as found:
            yield found


@pytest.fixture
def database_url(template: Template) -> Iterator[str]:
    """The URL of a migrated database."""
    with template.lent_database(months=False) as url:
        yield url
