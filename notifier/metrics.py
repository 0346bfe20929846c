"""The metrics of a notifier, in the text format of Prometheus.

A dozen numbers of one process do not need a client library.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta

from webhooks.deliveries import AttemptOutcome

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Upper bounds of an attempt's duration, in seconds; the last one is beyond the default of every timeout.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0)


class Metrics:
    """The counters of one process, and gauges, whose functions are called for each scrape."""

    def __init__(self) -> None:
        self.fanned_out = 0  # deliveries made from outbox rows
        self.leases_expired = 0
        self.database_failures = 0
        self.results_fenced = 0  # results whose lease had been taken over
        self.claims_returned = 0  # given back without an attempt, because of a fault of Tidemark or a drain
        self._attempts: Counter[AttemptOutcome] = Counter()
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}

    def gauge(self, name: str, description: str, read: Callable[[], float]) -> None:
        """Adds a gauge; `read` is called for each scrape."""
        self._gauges[name] = (description, read)

    def attempt(self, outcome: AttemptOutcome, duration: timedelta) -> None:
        """Counts an attempt."""
        self._attempts[outcome] += 1
        seconds = duration.total_seconds()
        self._seconds += seconds
        self._buckets[bisect_left(BUCKETS, seconds)] += 1

    def text(self) -> str:
        """All metrics."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        name = "tidemark_notifier_attempts_total"
        yield from _head(name, "counter", "Attempts by outcome.")
        for outcome in AttemptOutcome:
            yield f'{name}{{outcome="{outcome.lower()}"}} {self._attempts[outcome]}'
        name = "tidemark_notifier_attempt_duration_seconds"
        yield from _head(name, "histogram", "Time from the start of an attempt to its end.")
        below = 0
        for bound, number in zip((*map(str, BUCKETS), "+Inf"), self._buckets, strict=True):
            below += number
            yield f'{name}_bucket{{le="{bound}"}} {below}'
        yield f"{name}_sum {self._seconds}"
        yield f"{name}_count {below}"
        for name, description, value in (
            ("fan_out_deliveries_total", "Deliveries made from outbox rows.", self.fanned_out),
            ("leases_expired_total", "Leases of dead or paused notifiers that were taken over.", self.leases_expired),
            ("database_failures_total", "Times that the database could not be used.", self.database_failures),
            ("results_fenced_total", "Results dropped since their lease was taken over.", self.results_fenced),
            ("claims_returned_total", "Claims given back without an attempt.", self.claims_returned),
        ):
            yield from _head(f"tidemark_notifier_{name}", "counter", description)
            yield f"tidemark_notifier_{name} {value}"
        for name, (description, read) in self._gauges.items():
            yield from _head(f"tidemark_notifier_{name}", "gauge", description)
            yield f"tidemark_notifier_{name} {read()}"


def _head(name: str, kind: str, description: str) -> Iterator[str]:
    yield f"# HELP {name} {description}"
    yield f"# TYPE {name} {kind}"
