"""A rate that is limited: what this process may take of something in a second."""

import asyncio
from collections.abc import Callable

BURST = 1.0  # seconds of the rate that can be taken at once after a pause


class LimitedRate:
    """A token bucket that goes into debt: each message is taken as a whole, and the next ones wait until it is paid.

    So a message of any size passes, and over time no more is taken than the rate allows.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        """now: seconds of a clock that never goes back."""
        self._now = now
        self._rate: float | None = None
        self._balance = 0.0
        self._paid_until = 0.0  # the time up to which the balance is computed
        self._taken = 0  # since `restart_count`
        self._counted_debt = 0.0  # the debt then
        self._counted_since = now()
        self._turn = asyncio.Lock()  # streams wait one after the other

    @property
    def rate(self) -> float | None:
        """What may be taken in a second; None: it is not limited."""
        return self._rate

    def set_rate(self, rate: float | None) -> None:
        """Limits what follows to so many a second; None: to nothing."""
        if rate is not None and self._rate is None:
            self._balance, self._paid_until = rate * BURST, self._now()
        elif rate is not None:
            self._pay()
            self._balance = min(self._balance, rate * BURST)
        else:
            self._balance = self._counted_debt = 0.0
        self._rate = rate

    def wait(self) -> float:
        """The seconds until the next message may be taken; 0: now."""
        if self._rate is None:
            return 0.0
        self._pay()
        if self._balance > 0:
            return 0.0
        return -self._balance / self._rate + 0.001 if self._rate else BURST

    def take(self, amount: int) -> None:
        """Takes a message, whether its time has come or not."""
        self._taken += amount
        if self._rate is not None:
            self._pay()
            self._balance -= amount

    async def take_in_turn(self, amount: int) -> None:
        """Waits until the message may be taken, and takes it."""
        if self._rate is not None:
            async with self._turn:
                while (seconds := self.wait()) > 0:  # noqa: ASYNC110 (what is waited for is a time)
                    await asyncio.sleep(min(seconds, BURST))  # the rate may rise meanwhile
        self.take(amount)

    def restart_count(self) -> float:
        """What was used in a second, on average since the last call: what was taken without debt, or paid of it.

        A process in debt takes nothing. If it said so, each of several processes would pay with the whole quota.
        """
        now = self._now()
        seconds, debt = now - self._counted_since, self._debt()
        if seconds <= 0:  # the clock of the event loop stands during one pass
            return 0.0
        used = self._taken + self._counted_debt - debt
        self._counted_since, self._taken, self._counted_debt = now, 0, debt
        return max(used, 0.0) / seconds

    def _debt(self) -> float:
        if self._rate is None:
            return 0.0
        self._pay()
        return max(-self._balance, 0.0)

    def _pay(self) -> None:
        now = self._now()
        assert self._rate is not None
        self._balance = min(self._balance + (now - self._paid_until) * self._rate, self._rate * BURST)
        self._paid_until = now


def share_of_process(quota: int, others: float, processes: int) -> float:
    """What this process may take in a second of a quota of all processes.

    others: what the others took in a second, as they last said. processes: those that take something, with this one.
    Each may take an equal part, or what the others leave, if that is more.
    """
    return max(quota / processes, quota - others)
