"""Fixtures of every ring."""

from collections.abc import Iterator

import pytest

from tests.databases import Template


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    """The migrated template database of this test process."""
    template = Template(tmp_path_factory.mktemp("postgres"))
    yield template
    template.close()
