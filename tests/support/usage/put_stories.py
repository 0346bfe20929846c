"""A story of two organizations in which most calls are puts of customers and limits."""

from collections.abc import Sequence

from runtime.clock import ManualClock
from tests.support.usage.backfill_workers import Worker
from tests.support.usage.percentages import put_customer, put_limit
from tests.support.usage.twin_stories import TwinStory
from tests.support.usage.twins import Twin

HIGH_AMOUNTS = ("2000", "5000", "")  # of limits that usage does not come near
LOW_AMOUNTS = ("20", "60")


class PutStory(TwinStory):
    """Calls that are made by both organizations."""

    def __init__(
        self, seed: int, clock: ManualClock, twins: Sequence[Twin], step: Worker, *, with_ends: bool
    ) -> None:
        super().__init__(seed, clock, twins, step, with_ends=with_ends)
        self._new = 0
        self._calls |= {
            self.create_and_send: 4,
            self.backfill: 12,
            self.put_on_plan: 20,
            self.put_limit: 10,
            self.put_limit_of_customer: 25,
            self.put_new_customer: 3,
            self.put_subscription: 4,
        }

    async def put_limit_of_customer(self) -> None:
        """A limit of a customer on usage or cost, mostly a high one."""
        amount = self.random.choice((*HIGH_AMOUNTS, *HIGH_AMOUNTS, *LOW_AMOUNTS))
        customer = self.random.choice(("acme", "beta", "gamma", "unknown"))
        currency = self.random.choice(("", "", "", "USD"))
        await self.both(lambda _, caller: put_limit(caller, amount, customer=customer, currency=currency))

    async def put_new_customer(self) -> None:
        """A customer without usage, which a later put changes."""
        self._new += 1
        customer = f"new {self._new // 2}"
        plan = self.random.choice(("gold", "silver"))
        await self.both(lambda _, caller: put_customer(caller, customer, plan))
