"""Checks of quotas: organizations that use nearly all of what they may."""

from collections.abc import Sequence
from decimal import Decimal

from cli.doctor.findings import Check, Examined, Finding, ok, problem, warning
from store.diagnosis import quotas

NEARLY = Decimal("0.8")  # of a quota


async def use(examined: Examined) -> Sequence[Finding]:
    """Quotas that are used, or nearly used."""
    found = await quotas.nearly_used(examined.connection, examined.settings.quotas, NEARLY)
    findings = []
    for one in found[: quotas.SHOWN]:
        what = one.kind.replace("_per_second", " a second")
        text = f"{one.organization} uses {one.used:,} of its quota of {one.limit:,} {what}"
        why = "above it, its calls are refused with RESOURCE_EXHAUSTED"
        todo = f"tidemark quotas set --organization {one.organization} {one.kind}=…; or TIDEMARK_QUOTA_… for all"
        findings.append(problem(text, why, todo) if one.used >= one.limit else warning(text, why, todo))
    if len(found) > quotas.SHOWN:
        findings.append(
            warning(f"more than {quotas.SHOWN} quotas are nearly used", "as above", "tidemark quotas show")
        )
    return findings or [ok("no organization uses 80 % of a quota")]


CHECKS = (Check("quotas.use", "quotas of organizations that are nearly used", use),)
