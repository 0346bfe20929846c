"""Claims whose commit was not confirmed: the notifier does not know their deliveries and gives them back by token.

When the answer to a commit is lost, the claim may stand in the database all the same. Its deliveries would wait until
the lease ends, and would take the endpoint's whole share of deliveries in flight meanwhile.
"""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from notifier.backoff import Backoff
from notifier.metrics import Metrics
from store import delivery_results
from store.database import Database, DatabaseUnavailable
from store.delivery_queue import Order

# Seconds between one release of a token and the next. A server that has lost the connection of its client may still
# commit what the client had sent: a release before that finds nothing. After the last one the lease has to end.
PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)
TOKEN_LIMIT = 1_000  # tokens that are kept; the oldest are left to their leases

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Release:
    """When a token is released next, by the event loop's clock, and how often it was released."""

    time: float
    number: int = 0


class UnconfirmedClaims:
    """The tokens of claims of this process that may have been committed without its knowledge."""

    def __init__(self, database: Database, metrics: Metrics, pauses: Sequence[float] = PAUSES) -> None:
        """pauses: seconds between one release of a token and the next."""
        self._database = database
        self._metrics = metrics
        self._pauses = pauses
        self._releases: dict[uuid.UUID, _Release] = {}  # by token, the oldest first

    @contextlib.contextmanager
    def watch(self, order: Order | None) -> Iterator[None]:
        """Keeps the token of `order` when the block, which holds the whole transaction of the claim, fails.

        It is not kept when it is certain that nothing was committed. A transaction that could not even begin leaves
        its token too; the release then finds nothing.
        """
        try:
            yield
        except Exception as error:
            if order is not None and not (isinstance(error, DatabaseUnavailable) and error.failure.rolled_back):
                self._keep(order.lease_token)
            raise

    def any_due(self) -> bool:
        """Whether a token is to be released now."""
        return bool(self._releases) and bool(self._due())

    async def release(self) -> int:
        """Gives back what is leased under the tokens that are due; returns the number of deliveries.

        A token stays due when the database is not available.
        """
        return await self._release(self._due())

    async def release_all(self) -> None:
        """Releases every token once more, for the end of the process; tries until the database answers."""
        backoff = Backoff()
        while self._releases:
            try:
                await self._release(list(self._releases))
                break
            except DatabaseUnavailable as error:
                logger.warning("claims cannot be given back yet: %s", error, extra={"action": "database.lost"})
                await backoff.sleep()
            except Exception:
                logger.exception("claims cannot be given back", extra={"action": "worker.failed"})
                break

    def _keep(self, lease_token: uuid.UUID) -> None:
        self._releases[lease_token] = _Release(asyncio.get_running_loop().time())
        if len(self._releases) > TOKEN_LIMIT:
            del self._releases[next(iter(self._releases))]

    def _due(self) -> list[uuid.UUID]:
        now = asyncio.get_running_loop().time()
        return [token for token, release in self._releases.items() if release.time <= now]

    async def _release(self, lease_tokens: Sequence[uuid.UUID]) -> int:
        try:
            async with self._database.transaction() as connection:
                number = await delivery_results.release_unconfirmed(connection, lease_tokens)
        except Exception as error:
            # A lock that is held for long, or a fault of ours, must not keep the worker from everything else.
            if not isinstance(error, DatabaseUnavailable) or error.failure.contained:
                self._postpone(lease_tokens)
            raise
        if number < delivery_results.EXPIRED_LIMIT:
            self._postpone(lease_tokens)
        if number:
            self._metrics.claims_returned += number
            logger.warning(
                "%d deliveries are due again: the commit of their claim was not confirmed",
                number,
                extra={"action": "claim.unconfirmed"},
            )
        return number

    def _postpone(self, lease_tokens: Sequence[uuid.UUID]) -> None:
        """Lets tokens be released again after their next pause, and forgets those that have had all."""
        now = asyncio.get_running_loop().time()
        for token in lease_tokens:
            release = self._releases.get(token)
            if release is None:
                continue
            if release.number == len(self._pauses):
                del self._releases[token]
            else:
                release.time = now + self._pauses[release.number]
                release.number += 1
