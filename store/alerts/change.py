"""A change of definitions: its one lock, one epoch, one time and one author, however many alerts it changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.definitions import MAX_SPEND_ALERTS
from runtime.clock import Clock
from store.alerts.history import Author
from store.identity import organizations


@dataclass(frozen=True, slots=True)
class Begun:
    """What a change writes into the alerts that it changes."""

    epoch: int
    now: datetime


class Change:
    """The change of definitions by one caller, in one transaction."""

    def __init__(
        self,
        connection: AsyncConnection,
        organization_id: int,
        author: Author,
        clock: Clock,
        *,
        begun: Begun | None = None,
        max_spend_alerts: int = MAX_SPEND_ALERTS,
    ) -> None:
        """begun: of a transaction that holds the organization's lock exclusively, and has raised the epoch.

        max_spend_alerts: of each type on cost, of one subscription or plan.
        """
        self.connection = connection
        self.organization_id = organization_id
        self.author = author
        self.max_spend_alerts = max_spend_alerts
        self._clock = clock
        self._begun = begun

    @property
    def is_begun(self) -> bool:
        """Whether the transaction holds the lock, so that what it reads stays as it is."""
        return self._begun is not None

    async def begin(self) -> Begun:
        """Locks the organization until the transaction ends, and raises its epoch; both only at the first call."""
        if self._begun is None:
            epoch = await organizations.begin_change(self.connection, self.organization_id)
            # Read the clock under the lock: a new alert did not watch the events that came in while this waited.
            self._begun = Begun(epoch, self._clock.now())
        return self._begun


class ItemRefused(Exception):
    """One of several items cannot be done, so none is.

    cause: what the item alone would raise. others: further items that cannot be done, where they are known.
    """

    def __init__(self, index: int, cause: Exception, others: Sequence["ItemRefused"] = ()) -> None:
        super().__init__(index, cause)
        self.index = index
        self.cause = cause
        self.others = tuple(others)


class ItemsAlike(Exception):
    """Two items of one change exclude each other. other: the index of the first. key: what both have."""

    def __init__(self, other: int, key: str) -> None:
        super().__init__(other, key)
        self.other = other
        self.key = key
