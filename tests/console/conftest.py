"""Fixtures of the tests of the console: one stage for each module."""

from collections.abc import AsyncIterator

import pytest

from tests.support.console.stage import Stage, stage
from tests.support.databases import Template


@pytest.fixture(scope="module")
async def console(template: Template) -> AsyncIterator[Stage]:
    """A server and a console with the scenario; without a notifier."""
    with template.lent_database() as url:
        async with stage(url) as found:
            yield found
