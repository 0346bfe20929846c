"""Single checks of `tidemark doctor` on a database of a test, and what is done to that database."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import psycopg

from cli.client.connection import Address
from cli.doctor.checks import CHECKS
from cli.doctor.examination import CheckResult, run_checks
from cli.doctor.findings import Examined, Severity
from runtime.configuration import Configuration
from store.diagnosis.session import opened
from tests.support.waiting import within

SECONDS = 30.0  # for a check on a busy machine of tests


def _now() -> datetime:
    return datetime.now(UTC)


async def check(
    url: str,
    check_id: str,
    *,
    settings: Configuration | None = None,
    now: Callable[[], datetime] = _now,
    is_embedded: bool = False,
    address: Address | None = None,
) -> CheckResult:
    """Runs one check."""
    [wanted] = [one for one in CHECKS if one.check_id == check_id]
    async with opened(url) as connection:
        examined = Examined(settings or Configuration(database_url=url), url, connection, now, is_embedded, address)
        [result] = await run_checks(examined, [wanted], check_seconds=SECONDS, total_seconds=SECONDS)
        return result


async def until(url: str, check_id: str, severity: Severity) -> CheckResult:
    """Repeats a check until it has that severity."""
    async with within(f"{check_id} is {severity}"):
        while (found := await check(url, check_id)).severity is not severity:  # noqa: ASYNC110 (the database decides)
            await asyncio.sleep(0.05)
        return found


async def execute(url: str, *statements: str) -> None:
    """Executes statements, each in its own transaction."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for statement in statements:
            await connection.execute(statement.encode())


@asynccontextmanager
async def open_transaction(url: str, *statements: str) -> AsyncIterator[int]:
    """A transaction that stays open within the block; its process id."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        for statement in statements:
            await connection.execute(statement.encode())
        yield connection.info.backend_pid
