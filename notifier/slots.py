"""The slots of a process: how many deliveries it may have in flight, how many of one organization, and its leases."""

import asyncio
import contextlib
import math
import secrets
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta

from store.deliveries.queue import Claim, Order
from store.deliveries.results import Holdings

TOKEN_BITS = 64  # of a lease token, that are random and the same for all claims of a process
COUNTER_BITS = 64  # the others
CLAIM_LIMIT = 100  # deliveries in one transaction
ORGANIZATION_SHARE = 0.75  # of a process's slots, that one organization may have


class Slots:
    """`number` slots, each for a claim until its result is written.

    Were they free before that, memory and the number of leases would grow while the database is slow.

    The lease tokens of a process are consecutive numbers from a random start: so its leases can be found in the
    database without a list of the tokens.
    """

    def __init__(self, number: int, lease: timedelta) -> None:
        self._number = number
        self._lease = lease
        self._held: set[Claim] = set()
        self._reserved = 0  # for claims that are being made
        self._first_token = self._next_token = secrets.randbits(TOKEN_BITS) << COUNTER_BITS
        self._open_tokens: set[uuid.UUID] = set()  # of claims that are being made
        self._of_organization: Counter[int] = Counter()  # of those that are taken
        self._all_free = asyncio.Event()
        self._all_free.set()

    @property
    def taken(self) -> int:
        """How many claims there are whose result is not written."""
        return len(self._held)

    @contextlib.contextmanager
    def order(self, done: Sequence[Claim] = ()) -> Iterator[Order | None]:
        """What may be claimed at once, when the slots of `done` become free with it; None when there is no room.

        The slots are kept for the claim until the block ends: several may be on their way.
        """
        room = min(max(self._number - self.taken - self._reserved + len(done), 0), CLAIM_LIMIT)
        if not room:
            yield None
            return
        order = Order(room, self._lease, self._full_organizations(done), uuid.UUID(int=self._next_token))
        self._next_token += 1
        self._reserved += room
        self._open_tokens.add(order.lease_token)
        try:
            yield order
        finally:
            self._reserved -= room
            self._open_tokens.discard(order.lease_token)

    def take(self, claims: Sequence[Claim]) -> None:
        """Takes slots for what was claimed."""
        if claims:
            self._held.update(claims)
            self._of_organization.update(claim.organization_id for claim in claims)
            self._all_free.clear()

    def free(self, done: Sequence[Claim]) -> None:
        """Gives back the slots of what is done with."""
        self._held.difference_update(done)
        self._of_organization.subtract(claim.organization_id for claim in done)
        self._of_organization = +self._of_organization  # forgets those that have none
        if not self._held:
            self._all_free.set()

    def holdings(self) -> Holdings:
        """The leases that this process knows of: each of its others is an orphan, or ended."""
        return Holdings(
            uuid.UUID(int=self._first_token),
            uuid.UUID(int=self._next_token),
            frozenset(self._open_tokens),
            frozenset(self._held),
        )

    async def all_free_within(self, timeout: float) -> bool:
        """Waits until no slot is taken, for at most `timeout` seconds; says whether that came true."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._all_free.wait()
        return self._all_free.is_set()

    def _full_organizations(self, done: Sequence[Claim]) -> list[int]:
        """The organizations that have as many slots as one may, `done` left out: the others need some, too."""
        most = math.ceil(self._number * ORGANIZATION_SHARE)
        numbers = self._of_organization - Counter(claim.organization_id for claim in done)
        return [organization_id for organization_id, number in numbers.items() if number >= most]
