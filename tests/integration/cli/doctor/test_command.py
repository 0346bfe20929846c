"""`tidemark doctor` runs every check in time, and prints what it finds for people and for machines."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.doctor.checks import CHECKS
from cli.doctor.examination import TOTAL_SECONDS, run_checks
from cli.doctor.findings import Check, Examined, Finding, NotChecked, Severity
from cli.main import tidemark
from runtime.clock import SystemClock
from runtime.configuration import Configuration
from store.diagnosis.session import opened
from tests.support.cli.doctor import open_transaction

PROBLEM, NOT_CHECKED = Severity.PROBLEM, Severity.NOT_CHECKED


async def test_every_check_ends_in_time_on_a_new_database(database_url: str) -> None:
    async with opened(database_url) as connection:
        examined = Examined(
            Configuration(database_url=database_url), database_url, connection, SystemClock().now, False
        )
        results = await run_checks(examined, CHECKS, check_seconds=30.0, total_seconds=120.0)
    assert [one.check_id for one in results] == [one.check_id for one in CHECKS]
    assert {one.check_id: one.findings for one in results if one.severity is NOT_CHECKED} == {}


async def test_a_check_that_waits_too_long_is_reported_and_the_others_go_on(database_url: str) -> None:
    async def fails(_: Examined) -> list[Finding]:
        raise NotChecked("it is dark")

    async def sleeps(_: Examined) -> list[Finding]:
        await asyncio.sleep(60)
        return []

    work = [one for one in CHECKS if one.check_id in ("work.outbox", "work.heartbeat")]
    checks = [Check("a", "", fails), Check("b", "", sleeps), *work]
    async with (
        open_transaction(database_url, "LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE"),
        opened(database_url) as connection,
    ):
        examined = Examined(
            Configuration(database_url=database_url), database_url, connection, SystemClock().now, False
        )
        results = await run_checks(examined, checks, check_seconds=1.0, total_seconds=60.0)
    severities = {one.check_id: one.severity for one in results}
    assert [severities["a"], severities["b"], severities["work.outbox"]] == [NOT_CHECKED] * 3
    assert severities["work.heartbeat"] is PROBLEM
    assert "it is dark" in results[0].findings[0].found


async def test_the_checks_after_the_total_time_are_reported_as_not_checked(database_url: str) -> None:
    async with opened(database_url) as connection:
        examined = Examined(
            Configuration(database_url=database_url), database_url, connection, SystemClock().now, False
        )
        results = await run_checks(examined, CHECKS, total_seconds=0.0)
    assert {one.severity for one in results} == {NOT_CHECKED}
    assert TOTAL_SECONDS == 10.0


def test_the_command_prints_findings_for_people_and_for_machines(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMARK_DATABASE_URL", database_url)
    monkeypatch.setattr("cli.doctor.command.run_checks", _with_time)
    result = CliRunner().invoke(tidemark, ["doctor"])
    assert result.exit_code == 2  # no server has ever used this database
    assert "work.heartbeat" in result.stdout
    assert "tidemark serve" in result.stdout
    assert "database.version" not in result.stdout
    every = CliRunner().invoke(tidemark, ["doctor", "--all"])
    assert "database.version" in every.stdout
    machines = CliRunner().invoke(tidemark, ["doctor", "--json"])
    assert machines.exit_code == 2
    found = json.loads(machines.stdout)
    assert found[0]["check"] == "database.connection"
    assert {one["check"] for one in found} == {"database.connection", *(one.check_id for one in CHECKS)}
    assert all(one.keys() == {"check", "severity", "found", "why", "todo"} for one in found)


async def _with_time(examined: Examined, checks: list[Check]) -> object:
    """All checks, with time enough for a busy machine of tests."""
    return await run_checks(examined, checks, check_seconds=30.0, total_seconds=300.0)


def test_a_database_that_does_not_answer_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TIDEMARK_DATABASE_URL", "postgresql://operator:hunter2@127.0.0.1:1/usage")
    result = CliRunner().invoke(tidemark, ["doctor", "--json"])
    assert result.exit_code == 2
    [one] = json.loads(result.stdout)
    assert (one["check"], one["severity"]) == ("database.connection", "problem")
    assert "hunter2" not in result.output
    monkeypatch.delenv("TIDEMARK_DATABASE_URL")
    monkeypatch.setenv("TIDEMARK_DATA_DIRECTORY", str(tmp_path / "none"))
    result = CliRunner().invoke(tidemark, ["doctor"])
    assert (result.exit_code, "no embedded database" in result.output) == (2, True)
    assert not (tmp_path / "none").exists()
