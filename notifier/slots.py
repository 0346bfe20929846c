"""The slots of a process: they limit how many deliveries it has in flight, in all and of one organization."""

import asyncio
import contextlib
import math
import secrets
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta

from store.deliveries.claims import Claim, ClaimRequest
from store.deliveries.leases import Holdings

TOKEN_BITS = 64  # the high bits of a lease token, which are random and equal for all claims of a process
COUNTER_BITS = 64  # the low bits, which count the claims
CLAIM_LIMIT = 100  # deliveries in one transaction
ORGANIZATION_SHARE = 0.75  # of a process's slots: what one organization may have at most


class Slots:
    """`number` slots. Each belongs to a claim until the result of the claim is written.

    If slots became free earlier, memory and the number of leases would grow while the database is slow.

    The lease tokens of a process are consecutive numbers from a random start. So its leases can be found in the
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
    def reserve(self, done: Sequence[Claim] = ()) -> Iterator[ClaimRequest | None]:
        """What to claim when the slots of `done` become free with the claim; None when there is no free slot.

        The slots are reserved until the block ends, since several claims may be made at the same time.
        """
        room = min(max(self._number - self.taken - self._reserved + len(done), 0), CLAIM_LIMIT)
        if not room:
            yield None
            return
        request = ClaimRequest(room, self._lease, self._full_organizations(done), uuid.UUID(int=self._next_token))
        self._next_token += 1
        self._reserved += room
        self._open_tokens.add(request.lease_token)
        try:
            yield request
        finally:
            self._reserved -= room
            self._open_tokens.discard(request.lease_token)

    def take(self, claims: Sequence[Claim]) -> None:
        """Takes slots for new claims."""
        if claims:
            self._held.update(claims)
            self._of_organization.update(claim.organization_id for claim in claims)
            self._all_free.clear()

    def free(self, done: Sequence[Claim]) -> None:
        """Frees the slots of claims that have ended."""
        self._held.difference_update(done)
        self._of_organization.subtract(claim.organization_id for claim in done)
        self._of_organization = +self._of_organization  # forgets those that have none
        if not self._held:
            self._all_free.set()

    def holdings(self) -> Holdings:
        """The leases that this process knows of. Each other lease under its tokens is an orphan, or has ended."""
        return Holdings(
            uuid.UUID(int=self._first_token),
            uuid.UUID(int=self._next_token),
            frozenset(self._open_tokens),
            frozenset(self._held),
        )

    async def all_free_within(self, timeout: float) -> bool:
        """Waits until no slot is taken, for at most `timeout` seconds; returns whether none is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._all_free.wait()
        return self._all_free.is_set()

    def _full_organizations(self, done: Sequence[Claim]) -> list[int]:
        """The organizations that have as many slots as one may have, without those of `done`."""
        most = math.ceil(self._number * ORGANIZATION_SHARE)
        numbers = self._of_organization - Counter(claim.organization_id for claim in done)
        return [organization_id for organization_id, number in numbers.items() if number >= most]
