"""What a change gets while its group's transaction is open, and the two forms of a change."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from store.audit.entries import NewEntry
from store.postgres.database import Connection, DriverConnection

Result = TypeVar("Result")
ItemOf = TypeVar("ItemOf", contravariant=True)
ResultOf = TypeVar("ResultOf", covariant=True)


@dataclass(frozen=True, slots=True)
class OpenChange:
    """The transaction of a group, which holds the organization's lock exclusively.

    driver: the driver's own connection below `connection`. epoch: the new epoch, which changed rows store as
    `changed_epoch`. now: read under the lock, so that no usage that is counted already is later. max_spend_alerts: of
    each type on cost, of one subscription or plan. is_last: no other change of the group is made after this one.
    trail: of the audit log. A change adds an entry for each resource that it changes, and the group writes them.
    max_alerts: of the organization, without archived ones; None without a quota.
    """

    connection: Connection
    driver: DriverConnection
    organization_id: int
    epoch: int
    now: datetime
    max_spend_alerts: int
    is_last: bool
    trail: list[NewEntry]
    max_alerts: int | None = None


Work = Callable[[OpenChange], Awaitable[Result]]


class Kind(Protocol[ItemOf, ResultOf]):
    """Changes of one kind, which common statements prepare and write for all items that wait.

    goes_last: whether they are made after the changes of other kinds in their group, unless an earlier group had no
    time left for them.
    """

    goes_last: bool

    def needs_preparing(self, item: ItemOf) -> bool:
        """Whether `prepare` must get an item before `apply`; otherwise it can join a group that holds the lock."""
        ...

    async def prepare(
        self, connection: Connection, organization_id: int, items: Sequence[ItemOf]
    ) -> "Sequence[ResultOf | Exception | None]":
        """What can be done before the lock, for all items at once; writes nothing.

        Returns for each item its result, if nothing is to be written for it, or the exception that refuses it; None
        for an item that `apply` gets.
        """
        ...

    async def apply(self, change: OpenChange, items: Sequence[ItemOf]) -> "Sequence[ResultOf | Exception]":
        """Writes the items under the lock. An item whose result is an exception has written nothing.

        If this raises, all that it wrote is rolled back, and it is called again with each item alone.
        """
        ...
