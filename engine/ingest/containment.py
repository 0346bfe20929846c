"""Containment: after a commit failed for what it writes, its events are counted without the unrecordable ones.

An event that cannot be recorded is rejected by its index, so that it can be sent again. Its neighbours count, and
other streams do not notice. A failure of the database itself is not contained: another commit would fail, too.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from engine.evaluation.unrecordable import SURE, Unrecordable
from engine.ingest.batches import Batch, Outcome, add_part
from engine.ingest.group import EventIndex
from evaluator.events import UsageEvent
from runtime.actions import LogAction
from store.postgres.database import DatabaseUnavailable

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refused:
    """An event that could not be recorded; alert_id: the alert whose evaluation failed, where that is known."""

    customer_id: str
    event_id: str
    alert_id: str | None


@dataclass
class Contained:
    """What became of the batches, and what was refused."""

    outcomes: list[Outcome]
    refused: list[Refused] = field(default_factory=list)


class Containment:
    """Commits batches in as few parts as it takes to get around what cannot be recorded.

    attempt: commits batches as one, carefully (see `Unrecordable`). max_commits: the most attempts.
    """

    def __init__(
        self,
        attempt: Callable[[Sequence[Batch]], Awaitable[list[Outcome]]],
        batches: Sequence[Batch],
        max_commits: int,
    ) -> None:
        self._attempt = attempt
        self._batches = batches
        self._max_commits = max_commits
        self._commits = 0
        self._explained = False  # whether the log has the cause of an event that failed alone
        self._contained = Contained([Outcome() for _ in batches])

    async def commit(self) -> Contained:
        """Commits the batches, each customer's events in their order.

        Raises DatabaseUnavailable when the database is; then some of the events may be stored.
        """
        everything = [
            (number, index) for number, batch in enumerate(self._batches) for index in range(len(batch.events))
        ]
        # First by customers, in halves: a customer of which nothing can be recorded must not use up the commits that
        # would find out which others can. Parts have no customer in common, so they may be committed in any order.
        parts = deque([everything])
        failing: list[list[EventIndex]] = []
        while parts:
            left = await self._commit_part(parts.popleft())
            by_customer = self._by_customer(left)
            if len(by_customer) == 1:
                failing.append(left)
            elif by_customer:
                middle = len(by_customer) // 2
                for half in (by_customer[:middle], by_customer[middle:]):
                    parts.append(sorted(index for indexes in half for index in indexes))
        for done, indexes in enumerate(failing):
            share = (self._max_commits - self._commits) // (len(failing) - done)
            await self._settle_customer(indexes, self._commits + share)
        return self._contained

    async def _settle_customer(self, indexes: list[EventIndex], limit: int) -> None:
        """Commits the recordable events of one customer, in halves; as one part they could not be committed.

        limit: the number of commits from which on no more is tried.
        """
        alone, any_stored = 0, False  # events that failed alone; whether any part was stored
        waiting = [indexes]
        while waiting:
            part = waiting.pop()
            if self._commits >= limit or (alone >= SURE and not any_stored):
                self._refuse(part, {})
                continue
            # What has just failed as one part is not tried again as it is.
            left = part if part is indexes else await self._commit_part(part)
            if not left:
                any_stored = True
            elif len(left) == 1:
                alone += 1
                self._refuse(left, {})
            else:
                middle = len(left) // 2
                # The first half before the second one: a customer's events keep their order.
                waiting += [left[middle:], left[:middle]]

    async def _commit_part(self, indexes: list[EventIndex]) -> list[EventIndex]:
        """Commits events as one, without those that an alert keeps from being counted.

        Returns those that are left to be settled in smaller parts: none when the commit was made.
        """
        while indexes:
            if self._commits >= self._max_commits:
                self._refuse(indexes, {})
                return []
            self._commits += 1
            by_batch: dict[int, list[int]] = {}
            for number, index in indexes:
                by_batch.setdefault(number, []).append(index)
            try:
                outcomes = await self._attempt([self._part(*one) for one in by_batch.items()])
            except DatabaseUnavailable:
                raise
            except Unrecordable as found:
                alerts = self._refuse_guilty(found, indexes)
                if not alerts:
                    return indexes
                indexes = [one for one in indexes if one not in alerts]
            except Exception:
                if len(indexes) == 1:
                    # The cause is logged once: thousands of events usually fail for one reason.
                    logger.error(
                        "an event could not be recorded; it is rejected",
                        exc_info=not self._explained,
                        extra={"action": LogAction.EVENT_FAILED},
                    )
                    self._explained = True
                return indexes
            else:
                for (number, part), outcome in zip(by_batch.items(), outcomes, strict=True):
                    add_part(self._contained.outcomes[number], outcome, part)
                return []
        return []

    def _part(self, number: int, indexes: Sequence[int]) -> Batch:
        """Some events of a batch."""
        batch = self._batches[number]
        return batch.part([batch.events[index] for index in indexes])

    def _refuse_guilty(self, found: Unrecordable, indexes: Sequence[EventIndex]) -> dict[EventIndex, str]:
        """Refuses the events that an alert keeps from being counted; returns them with the id of that alert."""
        alerts = {one: alert for one in indexes if (alert := found.alert_of(self._event(one))) is not None}
        if alerts:
            logger.error(
                "what %d events found could not be recorded for %s; they are rejected",
                len(alerts),
                ", ".join(sorted(set(alerts.values()))[:10]),
                exc_info=found.cause,
                extra={"action": LogAction.EVALUATION_FAILED, "events": len(alerts)},
            )
            self._refuse(list(alerts), alerts)
        return alerts

    def _by_customer(self, indexes: Sequence[EventIndex]) -> list[list[EventIndex]]:
        """The indexes of each customer's events, in their order."""
        found: dict[str, list[EventIndex]] = {}
        for one in indexes:
            found.setdefault(self._event(one).customer_id, []).append(one)
        return list(found.values())

    def _event(self, index: EventIndex) -> UsageEvent:
        number, index_in_batch = index
        return self._batches[number].events[index_in_batch]

    def _refuse(self, indexes: Sequence[EventIndex], alerts: dict[EventIndex, str]) -> None:
        for one in indexes:
            number, index = one
            event = self._event(one)
            self._contained.outcomes[number].unrecorded.append(index)
            self._contained.refused.append(Refused(event.customer_id, event.event_id, alerts.get(one)))
