"""Events of which some are stored already: the others are stored by COPY, as far as that is possible.

An INSERT that finds duplicates costs more than a COPY, and most commits with duplicates have few. When COPY meets
one, PostgreSQL names its row. So the rows before it are copied, some rows from it on are inserted, and the rest is
copied again, in the order of the keys and in one transaction. Each COPY has a savepoint. A COPY that fails is lost,
so after a few failures all the rest is inserted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from evaluator.events import UsageEvent
from runtime.turns import Slices
from store.postgres.database import DriverConnection
from store.usage import events as stored_events
from store.usage.events import ROWS_AT_ONCE, DuplicateEvents

COPIED_AT_ONCE = 2_500  # events of one COPY, which is lost when one of them is a duplicate
FEW = 2  # duplicates in one INSERT; after more of them, the events that follow are inserted, too
MOST_FAILURES = 3  # of COPY, after which all the rest is inserted

Identity = tuple[str, str]  # of an event: customer id and event id


@dataclass(slots=True)
class PartlyStored:
    """Stores those of some events that are new, in the transaction of `connection`.

    first_duplicate: how many events in key order are before the first one that COPY found stored. native: see
    `stored_events.copy_text`.
    """

    connection: DriverConnection
    organization_id: int
    ingest_time: datetime
    first_duplicate: int
    slices: Slices
    native: bool
    _ordered: list[UsageEvent] = field(init=False, default_factory=list)
    _stored_before: set[Identity] = field(init=False, default_factory=set)
    _failures: int = field(init=False, default=0)

    async def store(self, events: Sequence[UsageEvent]) -> set[Identity]:
        """Returns the identities of those that were stored before. The events must be distinct."""
        ordered = self._ordered = stored_events.in_key_order(events)
        at, duplicate = 0, min(self.first_duplicate, len(ordered))
        while at < len(ordered):
            if at < duplicate and self._failures < MOST_FAILURES:
                found = await self._copy(at, min(at + COPIED_AT_ONCE, duplicate))
                if found is None:
                    at = min(at + COPIED_AT_ONCE, duplicate)
                else:
                    duplicate = found
            else:
                end = min(at + ROWS_AT_ONCE, len(ordered))
                has_many = await self._insert(at, end)
                at, duplicate = end, end if has_many else len(ordered)
        return self._stored_before

    async def _copy(self, start: int, end: int) -> int | None:
        """Copies events; returns where the first duplicate is, and has copied none of them then."""
        text = await stored_events.copy_text_in_slices(
            self.organization_id, self.ingest_time, self._ordered[start:end], self.slices, native=self.native
        )
        try:
            async with self.connection.transaction():  # a savepoint
                await stored_events.copy(self.connection, text)
        except DuplicateEvents as found:
            self._failures += 1
            return start + (found.row or 0)
        return None

    async def _insert(self, start: int, end: int) -> bool:
        """Inserts the new ones of some events; returns whether many of them were stored before."""
        part = self._ordered[start:end]
        await self.slices.begin()
        inserted = await stored_events.insert(self.connection, self.organization_id, self.ingest_time, part)
        self._stored_before.update(event.identity for event in part if event.identity not in inserted)
        return len(part) - len(inserted) > FEW
