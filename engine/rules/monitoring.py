"""What the registry of rules measures: each time that cached rules are brought to a new epoch."""

from collections.abc import Callable

from runtime.monitoring.instruments import TRANSACTION_BUCKETS, Instruments


class RulesMonitoring:
    """The measurements of one registry."""

    def __init__(self, instruments: Instruments | None = None) -> None:
        self._instruments = instruments or Instruments()
        self._seconds = self._instruments.histogram(
            "tidemark_rules_reload_duration_seconds",
            "Time to bring the cached rules of an organization to a new epoch: everything, or only what changed.",
            TRANSACTION_BUCKETS,
            labels=("kind",),
        )
        self._of_all, self._of_changes = self._seconds.labels("all"), self._seconds.labels("changes")

    def reloaded(self, seconds: float, *, everything: bool) -> None:
        """Counts a reload. everything: the rules were read anew, and not only what had changed."""
        (self._of_all if everything else self._of_changes).observe(seconds)

    def add_cached(
        self,
        organizations: Callable[[], float],
        customers: Callable[[], float],
        alerts: Callable[[], float],
    ) -> None:
        """Adds the sizes of the cache."""
        gauge = self._instruments.gauge
        gauge("tidemark_rules_cached_organizations", "Organizations whose rules are cached.", organizations)
        gauge("tidemark_rules_cached_customers", "Customers whose alerts and facts are cached.", customers)
        gauge(
            "tidemark_rules_cached_wide_alerts",
            "Cached alerts that name no customer, of all cached organizations.",
            alerts,
        )
