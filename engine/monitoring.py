"""What the background work of the engine measures: timers, backfills, and groups of changes."""

from runtime.monitoring.instruments import TRANSACTION_BUCKETS, Instruments

_LATENESS_BUCKETS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0)


class TimersMonitoring:
    """The measurements of the timers."""

    def __init__(self, instruments: Instruments | None = None) -> None:
        instruments = instruments or Instruments()
        self._evaluated = 0
        self._lateness = instruments.histogram(
            "tidemark_timer_lateness_seconds",
            "How late the latest timer of a sweep was evaluated, of sweeps that evaluated any.",
            _LATENESS_BUCKETS,
        )
        instruments.counter(
            "tidemark_timers_evaluated_total",
            "Customers whose due timers this process evaluated.",
            lambda: self._evaluated,
        )

    def swept(self, customers: int, lateness: float) -> None:
        """Counts a sweep. lateness: of its latest timer, in seconds."""
        if customers:
            self._evaluated += customers
            self._lateness.observe(lateness)


class BackfillsMonitoring:
    """The measurements of the backfills."""

    def __init__(self, instruments: Instruments | None = None) -> None:
        instruments = instruments or Instruments()
        self._failed = 0
        self._seconds = instruments.histogram(
            "tidemark_backfill_step_duration_seconds",
            "Duration of a step of a backfill that did something, one transaction or a few.",
            TRANSACTION_BUCKETS,
        )
        instruments.counter(
            "tidemark_backfill_failed_steps_total",
            "Steps of backfills that failed; they are tried again.",
            lambda: self._failed,
        )

    def step(self, seconds: float) -> None:
        """Counts a step that did something."""
        self._seconds.observe(seconds)

    def step_failed(self) -> None:
        """Counts a step that failed."""
        self._failed += 1


class ChangesMonitoring:
    """The measurements of the groups of changes."""

    def __init__(self, instruments: Instruments | None = None) -> None:
        instruments = instruments or Instruments()
        self._changes = 0
        self._held = instruments.histogram(
            "tidemark_change_lock_duration_seconds",
            "Time in which usage of an organization had to wait for a group of changes of its alerts and facts.",
            TRANSACTION_BUCKETS,
        )
        instruments.counter(
            "tidemark_changes_total",
            "Changes of alerts and facts that were made in groups, failed ones among them.",
            lambda: self._changes,
        )

    def group(self, changes: int, held: float) -> None:
        """Counts a group. held: seconds in which usage had to wait for it."""
        self._changes += changes
        self._held.observe(held)
