"""The commit of enforcement: requests of many callers are decided and made durable in one transaction.

Its steps, in the order of all locks: the organization's lock; the facts of the usage, with the registration of what
is unknown; the wallets of all customers whose meters are concerned. Then reservations, meters and credits are read
(`loading`), the requests are decided in memory (`answering`), the usage of settlements is stored and counted as any
usage, and what has changed is written (`writing`).
"""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from engine.enforcement import writing
from engine.enforcement.answering import answer
from engine.enforcement.attempts import Answer, Attempt, Surprise
from engine.enforcement.loading import Loader
from engine.enforcement.monitoring import EnforcementMonitoring
from engine.enforcement.requests import Request, UnrecordableRequest
from engine.meters.held_moves import held_moves, open_keys
from engine.rules.registry import RulesRegistry
from engine.rules.transaction import Transaction
from runtime.actions import LogAction
from runtime.clock import Clock
from store.identity.organizations import Organization
from store.postgres.database import Database, DatabaseUnavailable, driver
from store.postgres.retries import FIRST_PAUSE, Tries
from store.usage.events import DuplicateEvents

logger = logging.getLogger(__name__)

# Tries of a commit that found something else than it had expected: events or reservations that others just stored.
MOST_SURPRISES = 10


async def _at_once() -> None:
    """The default of `between_commits`: nothing has to go on meanwhile."""


class EnforcementCommitter:
    """Commits requests of one organization; one commit at a time."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        grace: timedelta,
        rules: RulesRegistry,
        organization: Organization,
        *,
        divided_commits: int,
        between_commits: Callable[[], Awaitable[None]] = _at_once,
        first_pause: float = FIRST_PAUSE,
        native: bool = True,
        monitoring: EnforcementMonitoring | None = None,
    ) -> None:
        """`grace`: how long after its end a period still counts late events.

        `rules`: not those of ingest, in which each customer has one writer. `divided_commits`: the most commits that
        are tried instead of one that failed. The others: as of `engine.ingest.commit.Committer`.
        """
        self._database = database
        self._clock = clock
        self._grace = grace
        self._rules = rules
        self._organization = organization
        self._organization_id = organization.organization_id
        self._divided_commits = divided_commits
        self._between_commits = between_commits
        self._first_pause = first_pause
        self._native = native
        self._monitoring = monitoring or EnforcementMonitoring()
        self._loader = Loader(organization.organization_id)

    async def commit(self, requests: Sequence[Request]) -> list[Answer]:
        """Decides requests in their order; when it returns, all of it is durable.

        If that fails for what it writes, they are committed in parts, and only those that fail alone are refused.
        Raises DatabaseUnavailable when the database is; then nothing may have happened, or all, or a part: to send
        the same requests again is safe.
        """
        try:
            return await self._repeated(requests)
        except DatabaseUnavailable:
            raise
        except Exception:
            logger.warning(
                "a commit of enforcement failed; its requests are committed in parts",
                exc_info=True,
                extra={"action": LogAction.COMMIT_FAILED},
            )
        self._monitoring.divided += 1
        return await self._divided(requests)

    async def _divided(self, requests: Sequence[Request]) -> list[Answer]:
        """Commits in halves, the first half first, until what fails fails alone."""
        answers: list[Answer | None] = [None] * len(requests)
        waiting, commits = [range(len(requests))], 0
        while waiting:
            part = waiting.pop()
            if commits >= self._divided_commits:
                for index in part:
                    answers[index] = UnrecordableRequest(requests[index].customer_id)
                continue
            if len(part) < len(requests) or len(requests) == 1:
                commits += 1
                await self._between_commits()
                try:
                    found = await self._repeated([requests[index] for index in part])
                except DatabaseUnavailable:
                    raise
                except Exception:
                    if len(part) == 1:
                        logger.exception(
                            "a request of enforcement could not be recorded; it is refused",
                            extra={"action": LogAction.EVENT_FAILED},
                        )
                        answers[part[0]] = UnrecordableRequest(requests[part[0]].customer_id)
                        continue
                else:
                    for index, answer in zip(part, found, strict=True):
                        answers[index] = answer
                    continue
            middle = len(part) // 2
            waiting += [part[middle:], part[:middle]]
        return [answer for answer in answers if answer is not None]

    async def _repeated(self, requests: Sequence[Request]) -> list[Answer]:
        """Commits, again after failures that allow it."""
        tries, surprises, checked = Tries(first_pause=self._first_pause), 0, False
        while True:
            try:
                return await self._attempt(Attempt(requests, checked, planned=not surprises))
            except (DuplicateEvents, Surprise) as error:
                surprises += 1
                if surprises == MOST_SURPRISES:
                    raise
                checked = checked or isinstance(error, DuplicateEvents)
            except DatabaseUnavailable as error:
                # Reservations are identified by their ids, so the transaction may be repeated after a commit, too.
                if not await tries.another(error):
                    raise
                await self._between_commits()

    async def _attempt(self, attempt: Attempt) -> list[Answer]:
        rules, loader = self._rules.of(self._organization_id), self._loader
        registered, router = rules.begin(), None
        now, began = self._clock.now(), time.perf_counter()
        plan = loader.plan(rules.cached, attempt, registered, now, self._grace)
        try:
            async with self._database.unbegun_transaction() as connection:
                raw = await driver(connection)
                opened = await loader.begin(raw, attempt, plan)
                standing = opened.standing
                if standing.name != self._organization.name:  # it was renamed meanwhile
                    self._organization = Organization(self._organization_id, standing.name)
                router = await rules.router(connection, standing.epoch, in_parts=True)
                transaction = Transaction(
                    connection,
                    raw,
                    self._organization,
                    router,
                    now,
                    self._grace,
                    standing.epoch,
                    self._rules.max_groups,
                )
                await loader.load_facts(transaction, rules, attempt, opened, registered)
                ledger, cells = await loader.load(transaction, attempt, opened, registered)
                open_before = open_keys(ledger.records.values())
                answers = await answer(loader, transaction, attempt, ledger)
                holds = held_moves(router, ledger.records.values(), open_before)
                counted = await writing.finish(transaction, ledger, registered, holds, native=self._native)
                await writing.write_and_commit(transaction, ledger, cells, answers)
        except BaseException:
            rules.rolled_back(router, registered)
            raise
        rules.committed(registered)
        writing.add_transitions(transaction, counted, answers)
        self._monitoring.committed(answers, time.perf_counter() - began)
        return answers
