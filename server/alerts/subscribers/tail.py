"""The newest part of one organization's feed, in memory: read once for all its subscribers on this server."""

import asyncio
from collections import deque
from collections.abc import Sequence

from store.notifications.feed import FeedEntry, NotificationFilter

MAX_ENTRIES = 1_000
MAX_LENGTH = 4_000_000  # of all bodies, in characters
WOKEN_IN_TURN = 200  # groups of waiting subscribers; one group wakes in a pass of the event loop


class Tail:
    """The newest entries of a feed, all of them, up to the last one that was read.

    A subscriber holds only its position. When its position is older than the tail it is `behind`, and reads from the
    database. So neither a slow subscriber nor a burst of notifications costs memory.
    """

    def __init__(self, *, max_entries: int = MAX_ENTRIES, max_length: int = MAX_LENGTH) -> None:
        """max_length: characters of all bodies together."""
        self._max_entries = max_entries
        self._max_length = max_length
        self.position: int | None = None  # of the newest entry; None until the feed is read
        self.deletion_epoch: int | None = None  # of the organization, when the entries were read
        self._entries: dict[int, FeedEntry] = {}  # by position; without those of erased customers
        self._length = 0
        self._grown: dict[int, asyncio.Event] = {}  # by group of subscribers

    def begin(self, position: int) -> None:
        """Empties the tail and lets it begin after that position of the feed."""
        self.position = position
        self._entries.clear()
        self._length = 0
        self._notify()

    def extend(self, entries: Sequence[FeedEntry]) -> None:
        """Adds the entries after the newest one, and removes the oldest when there are too many."""
        for entry in entries:
            self._entries[entry.position] = entry
            self._length += len(entry.body)
            self.position = entry.position
        while len(self._entries) > self._max_entries or self._length > self._max_length:
            oldest = next(iter(self._entries))
            self._length -= len(self._entries.pop(oldest).body)
        if entries:
            self._notify()

    def skip_to(self, position: int) -> None:
        """Goes on after positions whose entries are erased."""
        self.position = position
        self._notify()

    def is_behind(self, position: int) -> bool:
        """Whether a subscriber at that position misses entries that are not in the tail."""
        return self.position is not None and position < next(iter(self._entries), self.position + 1) - 1

    def next(self, position: int, wanted: NotificationFilter) -> FeedEntry | None:
        """The first wanted entry after `position`, or None. The position is not behind the tail."""
        for number in range(position + 1, (self.position or 0) + 1):
            entry = self._entries.get(number)
            if entry is not None and wanted.matches(entry):
                return entry
        return None

    def grown(self, subscriber: int = 0) -> asyncio.Event:
        """An event that is set when the tail grows after this call. subscriber: its number, which decides its group.

        10,000 subscribers that wake in one pass of the event loop keep all other calls waiting for as long.
        """
        group = subscriber % WOKEN_IN_TURN
        event = self._grown.get(group)
        if event is None:
            event = self._grown[group] = asyncio.Event()
        return event

    def _notify(self) -> None:
        waiting, self._grown = deque(self._grown.values()), {}
        _set_one_by_one(waiting)


def _set_one_by_one(events: deque[asyncio.Event]) -> None:
    """Sets the first event now, and each of the others in a later pass of the loop."""
    if events:
        events.popleft().set()
    if events:
        asyncio.get_running_loop().call_soon(_set_one_by_one, events)
