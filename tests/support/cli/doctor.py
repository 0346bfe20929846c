"""Single checks of `tidemark doctor` on a database of a test."""

from collections.abc import Callable
from datetime import UTC, datetime

from cli.client.connection import Address
from cli.doctor.checks import CHECKS
from cli.doctor.examination import CheckResult, run_checks
from cli.doctor.findings import Examined
from runtime.configuration import Configuration
from store.diagnosis.session import opened

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
