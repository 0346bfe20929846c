"""The pace of backfills: how much one step takes, and how long the next one waits while usage is being counted."""

from collections.abc import Callable

from engine.limits import BackfillLimits

_STEP = 2  # by which the size is multiplied or divided, from one step to the next
_NOT_FASTER = 0.7  # a step of half the size that takes more than this share of the time was not faster


class StepSize:
    """The size of the next step of a backfill, in customers or alerts.

    It is halved after a step that lasted longer than `slow_step_seconds`, because a change of the rules waits for the
    end of a step, and so does all usage behind that change; a customer may have very many events to count. On a busy
    machine a step lasts long whatever its size is: where a smaller step was not faster, the size goes back, and steps
    may last twice as long. After a failure it is halved, down to 1.
    """

    def __init__(self, limits: BackfillLimits, largest: int) -> None:
        self._limits = limits
        self._largest = largest
        self.size = min(limits.first_size, largest)
        self._ceiling = largest  # below `largest` after a failure
        self._tolerated = limits.slow_step_seconds
        self._before_halving: float | None = None  # the seconds of the step because of which it was just halved

    @property
    def reduced(self) -> bool:
        """Whether a step failed, and not enough steps have succeeded since."""
        return self._ceiling < self._largest

    def cut(self, customers: int) -> None:
        """Notes that the gauges of no more customers fitted into a step. Those of the others were found in vain."""
        self.size = min(self.size, max(customers * _STEP, _STEP))

    def failed(self) -> None:
        """Notes that a step of this size failed."""
        self.size = self._ceiling = max(self.size // _STEP, 1)

    def took(self, seconds: float) -> None:
        """Notes how many seconds a step of this size took."""
        self._ceiling = min(self._ceiling * _STEP, self._largest)
        before, self._before_halving = self._before_halving, None
        if seconds < self._limits.fast_step_seconds:
            self._tolerated = self._limits.slow_step_seconds
            self.size *= _STEP
        elif seconds > self._tolerated:
            if before is not None and seconds > before * _NOT_FASTER:
                self._tolerated = seconds * _STEP
                self.size *= _STEP
            else:
                self._before_halving = seconds
                self.size //= _STEP
        self.size = max(1, min(self.size, self._ceiling))


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
