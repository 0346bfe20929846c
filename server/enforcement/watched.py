"""Watched decisions: what the streams of an organization watch, each decision once, and what changed for each."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, TypeAlias

from evaluator.enforcement.decisions import Decision, LimitState, OveragePolicy
from generated.tidemark.v1 import limit_service_pb2 as messages
from server.calls.once import complete
from server.enforcement.visibility import hide_others
from server.mapping.requested_usage import UsageTemplate
from store.enforcement.changed_customers import Mark
from store.identity.organizations import Organization

Found: TypeAlias = Decision | Exception
_Signature: TypeAlias = tuple[object, ...]


class Watch(NamedTuple):
    """A decision that is watched."""

    customer_id: str
    template: UsageTemplate
    policy: OveragePolicy


@dataclass(frozen=True, slots=True)
class Reading:
    """A read of decisions. time: everything that was answered before it is in them. began: on the loop's clock."""

    time: datetime
    began: float


class Subscriber:
    """One stream. organization: whose decisions it watches. limited_to: see `only_customer`."""

    def __init__(self, organization: Organization, watches: Sequence[Watch]) -> None:
        self.organization = organization
        self.watches = watches
        self.limited_to = ""
        self._shown: dict[int, bytes] = {}  # of a stream that is limited to a customer
        # Only the latest of each, so a client that does not read costs no more than what it watches.
        self._changed: dict[int, tuple[Found, Reading]] = {}
        self._waiting: asyncio.Future[None] | None = None

    def note(self, index: int, found: Found, reading: Reading) -> None:
        """Notes the latest decision about one of its watches."""
        self._changed[index] = found, reading

    def take(self, most: int) -> dict[int, tuple[Found, Reading]]:
        """Some of the decisions that have changed, the oldest changes first."""
        if len(self._changed) <= most:
            taken, self._changed = self._changed, {}
            return taken
        return {index: self._changed.pop(index) for index in list(self._changed)[:most]}

    def put_back(self, index: int, found: Found, reading: Reading) -> None:
        """Puts a decision back that was taken and not sent, unless a later one was noted."""
        self._changed.setdefault(index, (found, reading))

    def shows_anew(self, index: int, shown: messages.WatchedDecision) -> bool:
        """Hides what a stream that is limited to one customer may not see; returns whether anything else changed."""
        hide_others(shown.decision, self.limited_to)
        content = shown.SerializeToString(deterministic=True)
        is_new = self._shown.get(index) != content
        self._shown[index] = content
        return is_new

    def wake(self, _: object = None) -> None:
        """Ends the wait of `changed`."""
        if self._waiting is not None:
            complete(self._waiting)

    async def changed(self, timeout: float) -> None:
        """Waits until a decision has changed, or `wake` is called, at most `timeout` seconds."""
        if self._changed:
            return
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        timer = loop.call_later(max(timeout, 0.0), self.wake)
        try:
            await self._waiting
        finally:
            timer.cancel()
            self._waiting = None


class _Entry:
    """A watched decision: what was found last, and the streams that watch it, each with its index there."""

    __slots__ = ("began", "readers", "signature")

    def __init__(self) -> None:
        self.signature: _Signature | None = None
        self.began = 0.0
        self.readers: list[tuple[Subscriber, int]] = []


class WatchedOrganization:
    """What is watched of one organization. read_time: of the last round over all decisions; None before it.

    look_due, round_due: when changes are looked for next, and when the next part of a round is read; on the loop's
    clock. mark: of the last look; None before the first one.
    """

    def __init__(self, organization: Organization, due: float) -> None:
        self.organization = organization
        self.look_due = self.round_due = due
        self.mark: Mark | None = None
        self.subscribers = 0
        self.read_time: datetime | None = None
        self._entries: dict[Watch, _Entry] = {}
        self._of_customer: dict[str, dict[Watch, None]] = {}
        self._changed: dict[Watch, None] = {}
        self._round: list[Watch] = []
        self._position = 0
        self._round_reading: Reading | None = None

    @property
    def decisions(self) -> int:
        """The watched decisions, each once."""
        return len(self._entries)

    @property
    def due(self) -> float:
        """When something is to be read."""
        return min(self.look_due, self.round_due)

    @property
    def customer_ids(self) -> list[str]:
        """The customers whose decisions are watched."""
        return list(self._of_customer)

    def add(self, subscriber: Subscriber) -> None:
        """Adds what a stream watches."""
        self.subscribers += 1
        for index, watch in enumerate(subscriber.watches):
            self._entries.setdefault(watch, _Entry()).readers.append((subscriber, index))
            self._of_customer.setdefault(watch.customer_id, {})[watch] = None

    def remove(self, subscriber: Subscriber) -> None:
        """Removes what a stream watches, unless others watch it."""
        self.subscribers -= 1
        for watch in subscriber.watches:
            entry = self._entries.get(watch)
            if entry is None:  # the stream watched it twice
                continue
            entry.readers = [reader for reader in entry.readers if reader[0] is not subscriber]
            if not entry.readers:
                del self._entries[watch]
                self._changed.pop(watch, None)
                of_customer = self._of_customer[watch.customer_id]
                del of_customer[watch]
                if not of_customer:
                    del self._of_customer[watch.customer_id]

    @property
    def has_changed(self) -> bool:
        """Whether decisions about customers that have changed wait to be read."""
        return bool(self._changed)

    def looked(self, changed: Iterable[str], mark: Mark, began: float) -> None:
        """Notes the customers that have changed. began: before the mark; what was read earlier is read again."""
        for customer_id in changed:
            self._changed.update(self._of_customer.get(customer_id, {}))
        if self.mark is None:
            self._changed.update(
                {watch: None for watch, one in self._entries.items() if one.signature and one.began < began}
            )
        self.mark = mark

    def next_changed(self, most: int) -> list[Watch]:
        """Some of the decisions about customers that have changed, without those that no stream has shown yet."""
        part: list[Watch] = []
        while self._changed and len(part) < most:
            watch = next(iter(self._changed))
            del self._changed[watch]
            if self._entries[watch].signature is not None:
                part.append(watch)
        return part

    def change_again(self, part: Iterable[Watch]) -> None:
        """Lets decisions be read again, because their read has failed."""
        self._changed.update({watch: None for watch in part if watch in self._entries})

    def next_part(self, most: int, reading: Reading) -> list[Watch]:
        """The next decisions of the round to read. Those that no stream has shown yet are left out."""
        if self._round_reading is None:
            self._round, self._position, self._round_reading = list(self._entries), 0, reading
        part: list[Watch] = []
        while self._position < len(self._round) and len(part) < most:
            watch = self._round[self._position]
            self._position += 1
            entry = self._entries.get(watch)
            if entry is not None and entry.signature is not None:
                part.append(watch)
        return part

    def go_back(self, part: Sequence[Watch]) -> None:
        """Lets a part be read again, because its read has failed."""
        self._position -= len(part)

    def end_of_round(self) -> Reading | None:
        """Ends the round if all was read; returns the reading with which it began, or None."""
        if self._round_reading is None or self._position < len(self._round):
            return None
        ended, self._round_reading = self._round_reading, None
        self.read_time = ended.time
        return ended

    def note(self, watch: Watch, found: Found, reading: Reading, first_of: Subscriber | None = None) -> None:
        """Notes what was found, and tells the streams for which it has changed.

        first_of: a stream that gets it in any case, because it shows it for the first time.
        """
        entry = self._entries.get(watch)
        if entry is None or reading.began < entry.began:
            return  # a later read was faster
        signature = signature_of(found)
        is_new, entry.signature, entry.began = signature != entry.signature, signature, reading.began
        for subscriber, index in entry.readers:
            if is_new or subscriber is first_of:
                subscriber.note(index, found, reading)
                subscriber.wake()


def signature_of(found: Found) -> _Signature:
    """What has to differ for a decision to have changed: its outcome, its reason, and what remains."""
    if isinstance(found, Exception):
        return type(found), str(found)
    return (
        found.outcome,
        found.reason,
        found.granted_quantity,
        found.granted_cost,
        _of_limit(found.limit),
        found.credit and (found.credit.unit, found.credit.available),
        tuple(state.limit.limit_id for state in found.over),
    )


def _of_limit(state: LimitState | None) -> _Signature | None:
    if state is None:
        return None
    # A rolling window moves each minute, also while nothing is used.
    start = None if state.limit.window.is_rolling else state.span.start
    return state.limit.limit_id, state.meter.customer_id, state.meter.group, start, state.remaining
