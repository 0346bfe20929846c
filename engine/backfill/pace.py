"""The pace of backfills: how much one step takes, and how long the next one waits while usage is being counted."""

from collections.abc import Callable

from engine.limits import BackfillLimits

_MAX_GROWTH = 2  # of the size, from one step to the next


class StepSize:
    """The size of the next step of a backfill, in customers or alerts.

    It follows from the time that the steps before took, so that a step lasts about `step_seconds`: a change of the
    rules waits for the end of a step, and usage of its customers does. After a failure it is halved, down to 1.
    """

    def __init__(self, limits: BackfillLimits, largest: int) -> None:
        self._limits = limits
        self._largest = largest
        self.size = min(limits.first_size, largest)
        self._ceiling = largest  # below `largest` after a failure

    @property
    def reduced(self) -> bool:
        """Whether a step failed, and not enough steps have succeeded since."""
        return self._ceiling < self._largest

    def failed(self) -> None:
        """Notes that a step of this size failed."""
        self.size = self._ceiling = max(self.size // 2, 1)

    def took(self, done: int, seconds: float) -> None:
        """Notes that a step did so much in so many seconds."""
        self._ceiling = min(self._ceiling * _MAX_GROWTH, self._largest)
        wanted = int(max(done, 1) * self._limits.step_seconds / max(seconds, 1e-6))
        self.size = max(1, min(wanted, self.size * _MAX_GROWTH, self._ceiling))


class Pace:
    """The pauses between steps.

    While usage is being counted, backfills work for `busy_share` of the time. Else they make no pauses.
    """

    def __init__(self, limits: BackfillLimits, busy: Callable[[], bool]) -> None:
        """busy: whether the process is counting usage now."""
        self._share = limits.busy_share
        self._longest = limits.longest_pause
        self._busy = busy
        self._was_busy = False

    def begin(self) -> None:
        """Notes that a round of steps begins."""
        self._was_busy = self._busy()

    def pause_after(self, seconds: float) -> float:
        """The seconds to wait after a round that took so many."""
        if not (self._was_busy or self._busy()):
            return 0.0
        return min(seconds * (1 - self._share) / self._share, self._longest)
