"""The newest part of one organization's feed, in memory: read once, for all who watch it on this server."""

import asyncio
from collections.abc import Sequence

from store.notifications.feed import Entry, NotificationFilter

MAX_ENTRIES = 1_000
MAX_LENGTH = 4_000_000  # of all bodies, in characters


class Tail:
    """The entries behind some place, up to the newest that was read.

    Watchers hold nothing but their place. One whose place is older than the tail is `behind`, and has to read from
    the database; so neither a slow watcher nor a burst costs memory.
    """

    def __init__(self) -> None:
        self.place: int | None = None  # of the newest entry; None until it has been read
        self._entries: dict[int, Entry] = {}  # by place, without a hole
        self._length = 0
        self._news = asyncio.Event()

    def begin(self, place: int) -> None:
        """The feed has come to that place; what stands up to it is not in the tail."""
        self.place = place
        self._entries.clear()
        self._length = 0
        self._tell()

    def extend(self, entries: Sequence[Entry]) -> None:
        """Adds what follows the newest entry; lets the oldest go where that is too much."""
        for entry in entries:
            self._entries[entry.position] = entry
            self._length += len(entry.body)
            self.place = entry.position
        while len(self._entries) > MAX_ENTRIES or self._length > MAX_LENGTH:
            oldest = next(iter(self._entries))
            self._length -= len(self._entries.pop(oldest).body)
        if entries:
            self._tell()

    def is_behind(self, place: int) -> bool:
        """Whether a watcher at that place misses entries that are not in the tail."""
        return self.place is not None and place < self.place - len(self._entries)

    def next(self, place: int, wanted: NotificationFilter) -> Entry | None:
        """The first entry after `place`, which is not behind, that is wanted; None when there is none."""
        for number in range(place + 1, (self.place or 0) + 1):
            if wanted.matches(entry := self._entries[number]):
                return entry
        return None

    def news(self) -> asyncio.Event:
        """Is set as soon as the tail is longer than it is now."""
        return self._news

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
