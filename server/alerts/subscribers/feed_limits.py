"""How often feeds are read for their subscribers, and how much at once."""

from dataclasses import dataclass

from server.alerts.subscribers.tail import MAX_ENTRIES


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedLimits:
    """How often feeds are read, and how much at once.

    poll_interval: seconds between polls for notifications whose commit was not heard.
    all_nodes_interval: seconds between polls that read all nodes of a cluster for them.
    retry_pause: seconds before the next try while the database is unavailable.
    tail_entries: entries that a tail keeps in memory.
    read_entries: entries by which a tail grows in one transaction.
    catch_up_entries: entries that a subscriber behind the tail holds at the same time.
    catch_up_span: positions that one read for such a subscriber covers.
    """

    poll_interval: float = 1.0
    all_nodes_interval: float = 5.0
    retry_pause: float = 1.0
    tail_entries: int = MAX_ENTRIES
    read_entries: int = 500
    catch_up_entries: int = 50
    catch_up_span: int = 10_000


DEFAULT_FEED_LIMITS = FeedLimits()
