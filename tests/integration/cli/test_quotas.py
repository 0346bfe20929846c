"""`tidemark quotas`: what it shows, sets and refuses."""

import asyncio
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from cli.main import tidemark
from store.identity import keys
from store.postgres.database import Database


@pytest.fixture(autouse=True)
def organization(database_url: str) -> None:
    """The organization `acme` exists."""

    async def create() -> None:
        database = Database(database_url, pool_size=1)
        try:
            async with database.transaction() as connection:
                await keys.create_key(connection, "acme", datetime(2026, 3, 15, tzinfo=UTC))
        finally:
            await database.close()

    asyncio.run(create())


def run(database_url: str, *arguments: str, **settings: str) -> tuple[int, str]:
    """The exit code and the output of `tidemark quotas …`."""
    environment = {"TIDEMARK_DATABASE_URL": database_url, **settings}
    result = CliRunner().invoke(tidemark, ["quotas", *arguments], env=environment)
    return result.exit_code, result.output


def shown(database_url: str, **settings: str) -> dict[str, tuple[str, str]]:
    """The quotas of `acme` and their sources, as the command prints them."""
    code, output = run(database_url, "show", "--organization", "acme", **settings)
    assert code == 0, output
    rows = [line.split() for line in output.splitlines()]
    return {kind: (limit, source) for kind, limit, source in rows}


def test_quotas_are_set_kept_and_removed(database_url: str) -> None:
    default = {"TIDEMARK_QUOTA_ALERTS": "10"}
    assert shown(database_url, **default)["alerts"] == ("10", "default")
    code, output = run(database_url, "set", "--organization", "acme", "alerts=100", "events_per_second=20000")
    assert code == 0, output
    assert shown(database_url, **default)["alerts"] == ("100", "own")
    code, output = run(database_url, "set", "--organization", "acme", "alerts=none", "streams=3")
    assert code == 0, output
    found = shown(database_url, **default)
    assert found["alerts"] == ("none", "own")
    assert found["events_per_second"] == ("20000", "own")
    assert found["streams"] == ("3", "own")
    code, output = run(database_url, "set", "--organization", "acme", "alerts=default", "streams=default")
    assert code == 0, output
    found = shown(database_url, **default)
    assert (found["alerts"], found["streams"]) == (("10", "default"), ("none", "default"))
    assert found["events_per_second"] == ("20000", "own")


@pytest.mark.parametrize(
    "value", ["alerts", "alerts=", "alerts=-1", "alerts=1.5", "customers=3", "alerts=٣", f"alerts={10**13}", "=3"]
)
def test_value_that_is_no_quota_is_refused(database_url: str, value: str) -> None:
    code, output = run(database_url, "set", "--organization", "acme", value)
    assert code == 2
    assert "Invalid value" in output


def test_kind_that_is_given_twice_is_refused(database_url: str) -> None:
    code, output = run(database_url, "set", "--organization", "acme", "alerts=1", "alerts=default")
    assert (code, "given twice" in output) == (2, True)


def test_unknown_organization_is_refused_and_not_created(database_url: str) -> None:
    for arguments in (("show", "--organization", "other"), ("set", "--organization", "other", "alerts=1")):
        code, output = run(database_url, *arguments)
        assert code == 1, output
        assert "there is no organization other" in output


def test_quota_of_the_configuration_that_is_no_number_is_refused(database_url: str) -> None:
    code, output = run(database_url, "show", "--organization", "acme", TIDEMARK_QUOTA_STREAMS="many")
    assert code == 2
    assert "TIDEMARK_QUOTA_STREAMS" in output
