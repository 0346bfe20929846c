"""The metrics of a notifier."""

from collections import Counter
from datetime import timedelta

from runtime.monitoring.instruments import Instruments
from webhooks.deliveries import AttemptOutcome

# Upper bounds of an attempt's duration, in seconds; the last one is beyond the default of every timeout.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0)


class Metrics:
    """What one notifier counts."""

    def __init__(self, instruments: Instruments | None = None) -> None:
        self.instruments = instruments = instruments or Instruments()
        self.fanned_out = 0  # deliveries made from outbox rows
        self.leases_expired = 0
        self.database_failures = 0
        self.results_fenced = 0  # results whose lease had been taken over
        self.claims_returned = 0  # given back without an attempt, because of a fault of Tidemark or a drain
        self._attempts = Counter[tuple[str, ...]]({(outcome.lower(),): 0 for outcome in AttemptOutcome})
        self._durations = instruments.histogram(
            "tidemark_notifier_attempt_duration_seconds", "Time from the start of an attempt to its end.", BUCKETS
        )
        counter = instruments.counter
        counter(
            "tidemark_notifier_attempts_total", "Attempts by outcome.", lambda: self._attempts, labels=("outcome",)
        )
        counter(
            "tidemark_notifier_fan_out_deliveries_total",
            "Deliveries made from outbox rows.",
            lambda: self.fanned_out,
        )
        counter(
            "tidemark_notifier_leases_expired_total",
            "Leases of dead or paused notifiers that were taken over.",
            lambda: self.leases_expired,
        )
        counter(
            "tidemark_notifier_database_failures_total",
            "Times that the database could not be used.",
            lambda: self.database_failures,
        )
        counter(
            "tidemark_notifier_results_fenced_total",
            "Results dropped since their lease was taken over.",
            lambda: self.results_fenced,
        )
        counter(
            "tidemark_notifier_claims_returned_total",
            "Claims given back without an attempt.",
            lambda: self.claims_returned,
        )

    def attempt(self, outcome: AttemptOutcome, duration: timedelta) -> None:
        """Counts an attempt."""
        self._attempts[outcome.lower(),] += 1
        self._durations.observe(duration.total_seconds())
