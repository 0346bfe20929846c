"""The metrics of one process."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import prometheus_client
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from runtime.actions import LogAction

# Without it, each counter and histogram has one more series, with the time of its creation.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

# A value, or a value for each combination of the values of its labels; None: there is no value at present.
Value = float | Mapping[tuple[str, ...], float] | None
Read = Callable[[], Value]

# Upper bounds of the duration of a transaction, in seconds.
TRANSACTION_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _ReadMetric:
    """A metric that is read at each scrape."""

    kind: type[CounterMetricFamily] | type[GaugeMetricFamily]
    name: str
    description: str
    read: Read
    labels: tuple[str, ...]

    def family(self) -> Metric | None:
        value = self.read()
        if value is None:
            return None
        if not isinstance(value, Mapping):
            return self.kind(self.name, self.description, value=value)
        family = self.kind(self.name, self.description, labels=self.labels)
        for labels, one in value.items():
            family.add_metric(labels, one)
        return family


class Instruments:
    """The metrics of one process, in a registry of its own: a test may run several processes' parts in one.

    A gauge or counter is a function that is called for each scrape, and reads what the process has anyway. So it
    costs nothing between two scrapes. A function must neither wait nor query the database; one that raises leaves its
    metric out of the scrape.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._read: list[_ReadMetric] = []
        self._failed: set[str] = set()  # names of metrics whose failure was logged
        self.registry.register(self)

    def gauge(self, name: str, description: str, read: Read, labels: Sequence[str] = ()) -> None:
        """Adds a value that rises and falls. labels: their names, when `read` returns a mapping."""
        self._read.append(_ReadMetric(GaugeMetricFamily, name, description, read, tuple(labels)))

    def counter(self, name: str, description: str, read: Read, labels: Sequence[str] = ()) -> None:
        """Adds a value that only rises; `name` ends with _total. labels: as of `gauge`."""
        assert name.endswith("_total"), name
        self._read.append(_ReadMetric(CounterMetricFamily, name, description, read, tuple(labels)))

    def histogram(
        self, name: str, description: str, buckets: Sequence[float], labels: Sequence[str] = ()
    ) -> Histogram:
        """Adds a histogram, which its owner observes. buckets: their upper bounds."""
        return Histogram(name, description, labels, buckets=buckets, registry=self.registry)

    def collect(self) -> Iterable[Metric]:
        """Reads the gauges and counters; the registry calls this for each scrape."""
        for one in self._read:
            try:
                family = one.family()
            except Exception:
                if one.name not in self._failed:
                    self._failed.add(one.name)
                    logger.exception(
                        "the metric %s cannot be read", one.name, extra={"action": LogAction.METRIC_FAILED}
                    )
                continue
            if family is not None:
                yield family
