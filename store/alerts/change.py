"""A change of definitions: its one epoch, one time and one author, however many alerts it changes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.definitions import MAX_SPEND_ALERTS, AlertDefinition
from store.alerts.history import Author


@dataclass(frozen=True, slots=True)
class Begun:
    """What a change writes into the alerts that it changes."""

    epoch: int
    now: datetime


# Is called with the definition before and after each change of an alert; before is None for a new one.
Record = Callable[[AlertDefinition | None, AlertDefinition], None]


def unrecorded(before: AlertDefinition | None, after: AlertDefinition) -> None:
    """Records nothing."""


@dataclass(frozen=True, slots=True)
class Change:
    """The change of definitions by one caller.

    Its transaction holds the organization's lock exclusively, and has raised the epoch. max_spend_alerts: of each
    type on cost, of one subscription or plan. record: notes each changed alert for the audit log. max_alerts: of the
    organization, without archived ones.
    """

    connection: AsyncConnection
    organization_id: int
    author: Author
    begun: Begun
    max_spend_alerts: int = MAX_SPEND_ALERTS
    record: Record = unrecorded
    max_alerts: int | None = None


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
