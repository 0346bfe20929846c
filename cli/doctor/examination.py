"""The run of all checks: one after the other, each within its time, and all within ten seconds."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from cli.doctor.findings import EXIT_CODES, Check, Examined, Finding, NotChecked, Severity
from store.diagnosis.session import NotAnswered, SchemaLacks, limited
from store.postgres.failures import DatabaseUnavailable

CHECK_SECONDS = 2.0
TOTAL_SECONDS = 10.0
MARGIN = 0.5  # seconds more than PostgreSQL has for a statement, so that its own error comes first


@dataclass(frozen=True)
class CheckResult:
    """A check with what it found."""

    check_id: str
    title: str
    findings: Sequence[Finding]

    @property
    def severity(self) -> Severity:
        """The worst of its findings."""
        order = list(Severity)
        return max((one.severity for one in self.findings), key=order.index, default=Severity.OK)


def exit_code(results: Sequence[CheckResult]) -> int:
    """The exit code for the worst finding."""
    return max((EXIT_CODES[one.severity] for one in results), default=0)


async def run_checks(
    examined: Examined,
    checks: Sequence[Check],
    *,
    check_seconds: float = CHECK_SECONDS,
    total_seconds: float = TOTAL_SECONDS,
) -> list[CheckResult]:
    """Runs the checks. One that fails is reported as such and does not stop the others."""
    clock = asyncio.get_running_loop().time
    end = clock() + total_seconds
    results = []
    for check in checks:
        seconds = min(check_seconds, end - clock())
        if seconds <= 0:
            findings: Sequence[Finding] = [_not_checked(f"the time for all checks ({total_seconds:g} s) was over")]
        else:
            findings = await _run(examined, check, seconds)
        results.append(CheckResult(check.check_id, check.title, findings))
    return results


async def _run(examined: Examined, check: Check, seconds: float) -> Sequence[Finding]:
    try:
        async with asyncio.timeout(seconds + MARGIN), limited(examined.connection, seconds):
            return await check.run(examined)
    except TimeoutError:
        return [_not_checked(f"it took longer than {seconds:.1f} s")]
    except SchemaLacks as error:
        return [_not_checked(str(error), "tidemark migrate, then repeat the command")]
    except DatabaseUnavailable as error:
        return [_not_checked(str(error), "mend the problems that were found, then repeat the command")]
    except (NotAnswered, NotChecked) as error:
        return [_not_checked(str(error))]


_REPEAT = "give the role pg_monitor if a permission is missing; otherwise repeat the command when less is going on"


def _not_checked(why: str, todo: str = _REPEAT) -> Finding:
    return Finding(
        Severity.NOT_CHECKED, f"could not be checked: {why}", "something may be wrong that is not shown", todo
    )
