"""The newest part of one organization's feed, in memory: read once for all its subscribers on this server."""

from collections.abc import Sequence

from runtime.turns import Pieces
from server.alerts.subscribers.garbage import Collections
from server.alerts.subscribers.waits import Waits
from store.notifications.feed import FeedEntry, NotificationFilter

MAX_ENTRIES = 1_000
MAX_LENGTH = 4_000_000  # of all bodies, in characters


class Tail:
    """The newest entries of a feed, all of them, up to the last one that was read.

    A subscriber holds only its position. When its position is older than the tail it is `behind`, and reads from the
    database. So neither a slow subscriber nor a burst of notifications costs memory.
    """

    def __init__(self, pieces: Pieces, *, max_entries: int = MAX_ENTRIES, max_length: int = MAX_LENGTH) -> None:
        """pieces: of the work for subscribers, sets their pace. max_length: characters of all bodies together."""
        self._max_entries = max_entries
        self._max_length = max_length
        self.position: int | None = None  # of the newest entry; None until the feed is read
        self.deletion_epoch: int | None = None  # of the organization, when the entries were read
        self._entries: dict[int, FeedEntry] = {}  # by position; without those of erased customers
        self._length = 0
        self.growths = 0  # how often the tail has grown; a subscriber compares it with an earlier one
        self.pieces = pieces
        self.collections = Collections()
        self.waits = Waits(pieces)  # of subscribers for the next growth

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

    def _notify(self) -> None:
        self.growths += 1
        self.waits.end()
