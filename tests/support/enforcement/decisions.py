"""Decisions, and a checker without a database that makes them."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from evaluator.balances import Unit
from evaluator.enforced_limits import EnforcedLimit, Enforcement
from evaluator.enforcement.decisions import Decision, LimitState, Outcome, OveragePolicy, Reason
from evaluator.enforcement.meters import Meter
from evaluator.enforcement.usage import Usage
from evaluator.limit_windows import BILLING_PERIOD, LimitWindow
from evaluator.periods import Period
from store.enforcement.changed_customers import Mark
from store.identity.organizations import Organization
from tests.support.waiting import within

NOON = datetime(2026, 3, 15, 12, tzinfo=UTC)
MARCH = Period(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
AMOUNT = Decimal(100)


def limit_state(remaining: Decimal, *, customer_id: str = "acme", window: LimitWindow = BILLING_PERIOD) -> LimitState:
    """A limit of 100 of which so much is left; nothing is held."""
    unit = Unit(metric_id="tokens")
    span = None if window.is_rolling else MARCH
    return LimitState(
        EnforcedLimit("tokens-a-month", unit, (), window, AMOUNT, Enforcement.HARD, 1),
        Meter(customer_id, None, unit, (), window, span),
        AMOUNT - remaining,
        Decimal(0),
        remaining,
        MARCH,
    )


def decision(remaining: Decimal, wanted: Decimal = Decimal(1), *, customer_id: str = "acme") -> Decision:
    """A decision about usage of a limit of which so much is left."""
    state = limit_state(remaining, customer_id=customer_id)
    if wanted <= remaining:
        return Decision(Outcome.ALLOWED, wanted, None, limit=state)
    return Decision(
        Outcome.DENIED, Decimal(0), None, Reason.LIMIT, state, retry_after=MARCH.end - NOON + timedelta(0)
    )


class CheckerInMemory:
    """What each customer has left, and who was checked how often. failure: raised by the next checks.

    looks: how often was asked what has changed. finds_changes: whether that is answered, as it is not for plans.
    """

    def __init__(self) -> None:
        self.left: dict[tuple[int, str], Decimal] = {}
        self.calls: list[tuple[int, int]] = []  # organization and number of usages
        self.checked = Counter[str]()
        self.failure: Exception | None = None
        self.looks = 0
        self.finds_changes = True
        self._seen: dict[int, dict[str, Decimal]] = {}
        self.refused: dict[str, Exception] = {}
        self._called = asyncio.Event()

    async def check(
        self, organization: Organization, usages: Sequence[Usage], policy: OveragePolicy
    ) -> Sequence[Decision | Exception]:
        """A decision about each usage."""
        self.calls.append((organization.organization_id, len(usages)))
        self._called.set()
        if self.failure is not None:
            raise self.failure
        found: list[Decision | Exception] = []
        for usage in usages:
            self.checked[usage.customer_id] += 1
            left = self.left.get((organization.organization_id, usage.customer_id), AMOUNT)
            refused = self.refused.get(usage.customer_id)
            found.append(refused or decision(left, usage.quantity, customer_id=usage.customer_id))
        await asyncio.sleep(0)
        return found

    async def until_looked(self) -> None:
        """Waits for the end of two looks, of which the second began after this call."""
        looks = self.looks
        await self.until(lambda: self.looks >= looks + 2)

    async def until(self, happened: Callable[[], bool]) -> None:
        """Waits for a check after which the condition is true."""
        async with within("a check"):
            while not happened():
                self._called.clear()
                await self._called.wait()

    async def changed(
        self, organization: Organization, customer_ids: Sequence[str], since: Mark | None
    ) -> tuple[set[str], Mark]:
        """The customers of which something else is left than at the last look."""
        self.looks += 1
        self._called.set()
        if self.failure is not None:
            raise self.failure
        now = {one: self.left.get((organization.organization_id, one), AMOUNT) for one in customer_ids}
        before = self._seen.pop(since, now) if isinstance(since, int) else now
        self._seen[self.looks] = now
        await asyncio.sleep(0)
        changed = {one for one, left in now.items() if self.finds_changes and before.get(one, left) != left}
        return changed, self.looks
