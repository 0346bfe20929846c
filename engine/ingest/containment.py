"""Containment: when a commit fails for what it writes, its events are counted without those that cannot be recorded.

What cannot be recorded is refused by index, so that it can be sent again; its neighbours count, and other streams
never learn of it. A failure of the database itself is not contained: nothing that is tried instead would fare better.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from engine.evaluation.careful import SURE, Unrecordable
from engine.ingest.batches import Batch, Outcome, take_part
from runtime.actions import LogAction
from store.postgres.database import DatabaseUnavailable

# Commits that one that failed is replaced by, at the most. An alert that cannot be recorded takes two, an event that
# cannot be stored about two for each doubling of the customers and of that customer's events.
MAX_COMMITS = 200

Place = tuple[int, int]  # of an event: its batch and its position there

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

    attempt: commits batches as one, carefully (see `Unrecordable`).
    """

    def __init__(
        self, attempt: Callable[[Sequence[Batch]], Awaitable[list[Outcome]]], batches: Sequence[Batch]
    ) -> None:
        self._attempt = attempt
        self._batches = batches
        self._commits = 0
        self._explained = False  # whether the log has the cause of an event that failed alone
        self._contained = Contained([Outcome() for _ in batches])

    async def commit(self) -> Contained:
        """Commits the batches, each customer's events in their order.

        Raises DatabaseUnavailable when the database is; then some of the events may be stored.
        """
        everything = [
            (number, position) for number, batch in enumerate(self._batches) for position in range(len(batch.events))
        ]
        # First by customers, in halves: one of whom nothing can be recorded must not use up the commits that would
        # find out which others can. Parts have no customer in common, so they may be committed in any order.
        parts = deque([everything])
        failing: list[list[Place]] = []
        while parts:
            left = await self._commit_part(parts.popleft())
            by_customer = self._by_customer(left)
            if len(by_customer) == 1:
                failing.append(left)
            elif by_customer:
                middle = len(by_customer) // 2
                for half in (by_customer[:middle], by_customer[middle:]):
                    parts.append(sorted(place for places in half for place in places))
        for position, places in enumerate(failing):
            share = (MAX_COMMITS - self._commits) // (len(failing) - position)
            await self._settle_customer(places, self._commits + share)
        return self._contained

    async def _settle_customer(self, places: list[Place], limit: int) -> None:
        """Commits what can be of one customer, whose events could not be committed as one, in halves.

        limit: the number of commits from which on no more is tried.
        """
        alone, any_stored = 0, False  # events that failed alone; whether any part was stored
        waiting = [places]
        while waiting:
            part = waiting.pop()
            if self._commits >= limit or (alone >= SURE and not any_stored):
                self._refuse(part, {})
                continue
            # What has just failed as one part is not tried again as it is.
            left = part if part is places else await self._commit_part(part)
            if not left:
                any_stored = True
            elif len(left) == 1:
                alone += 1
                self._refuse(left, {})
            else:
                middle = len(left) // 2
                # The first half before the second one: a customer's events keep their order.
                waiting += [left[middle:], left[:middle]]

    async def _commit_part(self, places: list[Place]) -> list[Place]:
        """Commits events as one, without those that an alert keeps from being counted.

        Returns those that are left to be settled in smaller parts: none when the commit was made.
        """
        while places:
            if self._commits >= MAX_COMMITS:
                self._refuse(places, {})
                return []
            self._commits += 1
            numbers = list(dict.fromkeys(number for number, _ in places))
            positions = {number: [position for one, position in places if one == number] for number in numbers}
            parts = [
                Batch([self._batches[number].events[position] for position in positions[number]], wants)
                for number in numbers
                for wants in (self._batches[number].include_gauges,)
            ]
            try:
                outcomes = await self._attempt(parts)
            except DatabaseUnavailable:
                raise
            except Unrecordable as found:
                alerts = {place: alert for place in places if (alert := self._alert_of(found, place)) is not None}
                if not alerts:
                    return places
                logger.error(
                    "what %d events found could not be recorded by %s; they are refused",
                    len(alerts),
                    ", ".join(sorted(set(alerts.values()))[:10]),
                    exc_info=found.cause,
                    extra={"action": LogAction.EVALUATION_FAILED, "events": len(alerts)},
                )
                self._refuse(list(alerts), alerts)
                places = [place for place in places if place not in alerts]
            except Exception:
                if len(places) == 1:
                    # Why is said once: what fails for thousands of events usually fails for one reason.
                    logger.error(
                        "an event could not be recorded; it is refused",
                        exc_info=not self._explained,
                        extra={"action": LogAction.EVENT_FAILED},
                    )
                    self._explained = True
                return places
            else:
                for number, outcome in zip(numbers, outcomes, strict=True):
                    take_part(self._contained.outcomes[number], outcome, positions[number])
                return []
        return []

    def _by_customer(self, places: Sequence[Place]) -> list[list[Place]]:
        """The places of each customer's events, in their order."""
        found: dict[str, list[Place]] = {}
        for number, position in places:
            found.setdefault(self._batches[number].events[position].customer_id, []).append((number, position))
        return list(found.values())

    def _alert_of(self, found: Unrecordable, place: Place) -> str | None:
        number, position = place
        return found.alert_of(self._batches[number].events[position])

    def _refuse(self, places: Sequence[Place], alerts: dict[Place, str]) -> None:
        for number, position in places:
            event = self._batches[number].events[position]
            self._contained.outcomes[number].unrecorded.append(position)
            self._contained.refused.append(Refused(event.customer_id, event.event_id, alerts.get((number, position))))
