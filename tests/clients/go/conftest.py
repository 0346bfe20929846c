"""Fixtures of the tests of the Go client."""

from pathlib import Path

import pytest

from tests.support.clients.golang import Go, find_go


@pytest.fixture(scope="session")
def go() -> Go:
    """The toolchain; tests are skipped without it."""
    go = find_go()
    if isinstance(go, str):
        pytest.skip(go)
    return go


@pytest.fixture(scope="session")
def go_tests(go: Go, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program with the client's own tests."""
    program = tmp_path_factory.mktemp("go") / "client.test"
    go.run("test", "-c", *go.extra, "-o", str(program), "./tidemark")
    return program
