"""What LimitService needs of the engine."""

from collections.abc import Sequence
from typing import Protocol

from engine.enforcement.requests import Decided, Request
from engine.ingest.pending import Room
from evaluator.enforcement.decisions import Decision, OveragePolicy
from evaluator.enforcement.usage import Usage
from store.enforcement.changed_customers import Mark
from store.identity.organizations import Organization


class Decider(Protocol):
    """Decides requests, and makes what they change durable."""

    async def admit(self, organization: Organization, requests: int, *, waits: bool = False) -> Room:
        """Room for requests, before anything is done for them. waits: until there is room.

        Raises Overloaded.
        """

    async def submit(
        self, organization: Organization, requests: Sequence[Request], room: Room | None = None
    ) -> Sequence[Decided | Exception]:
        """The answers in the order of the requests, when they are durable; the order of each customer is kept.

        A request that cannot be decided has an exception in place of its answer. room: for at least the requests, for
        which it is handed over. Raises DatabaseUnavailable when some of them may not be stored.
        """


class Checker(Protocol):
    """Decides without an effect."""

    async def check(
        self, organization: Organization, usages: Sequence[Usage], policy: OveragePolicy
    ) -> Sequence[Decision | Exception]:
        """The decisions in the order of the usages. Calls at the same time share one read.

        Raises DatabaseUnavailable.
        """

    async def changed(
        self, organization: Organization, customer_ids: Sequence[str], since: Mark | None
    ) -> tuple[set[str], Mark]:
        """Those of the customers whose decisions may have changed since the last look; and the mark of this one.

        since: the mark of the last look; None finds nothing. What changes for all customers of a plan, and with time
        alone, is not found. Raises DatabaseUnavailable.
        """
