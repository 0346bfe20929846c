"""What one organization uses of its quotas in this process, and its part of what all processes may use."""

from collections.abc import Callable

from engine.quotas.rate import LimitedRate, share_of_process
from runtime.quotas import QuotaKind, Quotas
from store.identity.quotas import OthersUse, QuotaReached, Use

RATES = (QuotaKind.EVENTS_PER_SECOND, QuotaKind.BYTES_PER_SECOND)
NUMBERS = (QuotaKind.STREAMS, QuotaKind.WATCHERS)


class OrganizationUse:
    """Open streams and rates of one organization in this process.

    others: what the other processes use, as they last said, which is up to two intervals of the exchange ago.
    """

    def __init__(self, quotas: Quotas, now: Callable[[], float]) -> None:
        """now: seconds of a clock that never goes back."""
        self.others = OthersUse()
        self._open = dict.fromkeys(NUMBERS, 0)
        self._rates = {kind: LimitedRate(now) for kind in RATES}
        self._last = Use()
        self._quotas: Quotas = {}
        self.follow(quotas, self.others)

    def follow(self, quotas: Quotas, others: OthersUse) -> None:
        """Sets what applies from now on."""
        self._quotas, self.others = quotas, others
        used = {
            QuotaKind.EVENTS_PER_SECOND: others.use.events_per_second,
            QuotaKind.BYTES_PER_SECOND: others.use.bytes_per_second,
        }
        for kind, rate in self._rates.items():
            quota = quotas.get(kind)
            rate.set_rate(None if quota is None else share_of_process(quota, used[kind], others.taking + 1))

    @property
    def is_limited(self) -> bool:
        """Whether a quota applies to something that processes exchange."""
        return any(self._quotas.get(kind) is not None for kind in (*NUMBERS, *RATES))

    def open(self, kind: QuotaKind) -> None:
        """Counts one more open stream. Raises QuotaReached."""
        quota = self._quotas.get(kind)
        if quota is not None and self.number(kind) >= quota:
            raise QuotaReached(kind, quota)
        self._open[kind] += 1

    def close(self, kind: QuotaKind) -> None:
        """Counts one open stream less."""
        self._open[kind] -= 1

    def number(self, kind: QuotaKind) -> int:
        """The open streams of all processes."""
        others = self.others.use.streams if kind is QuotaKind.STREAMS else self.others.use.watchers
        return self._open[kind] + others

    def share(self, kind: QuotaKind) -> float | None:
        """What this process may take in a second; None: it is not limited."""
        return self._rates[kind].rate

    def take(self, kind: QuotaKind, amount: int) -> None:
        """Takes a message of a unary call. Raises QuotaReached, with the time after which it can be taken."""
        if (seconds := self.wait(kind)) > 0:
            raise QuotaReached(kind, self._quotas.get(kind) or 0, seconds)
        self._rates[kind].take(amount)

    def wait(self, kind: QuotaKind) -> float:
        """The seconds until the next message may be taken; 0: now."""
        return self._rates[kind].wait()

    async def take_in_turn(self, kind: QuotaKind, amount: int) -> None:
        """Takes a message of a stream, when its time has come."""
        await self._rates[kind].take_in_turn(amount)

    def measured(self) -> Use:
        """What this process uses; rates since the last call."""
        events, size = (self._rates[kind].restart_count() for kind in RATES)
        self._last = Use(self._open[QuotaKind.STREAMS], self._open[QuotaKind.WATCHERS], events, size)
        return self._last

    def used(self) -> dict[QuotaKind, int]:
        """What all processes use; rates are those between the last two calls of `measured`."""
        others = self.others.use
        return {
            QuotaKind.STREAMS: self.number(QuotaKind.STREAMS),
            QuotaKind.WATCHERS: self.number(QuotaKind.WATCHERS),
            QuotaKind.EVENTS_PER_SECOND: round(self._last.events_per_second + others.events_per_second),
            QuotaKind.BYTES_PER_SECOND: round(self._last.bytes_per_second + others.bytes_per_second),
        }
