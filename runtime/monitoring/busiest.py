"""The busiest organizations: a bounded number of them has series of its own, however many there are.

A label with every organization would give each scrape one series more for each customer of the operator. So each
process counts the load of the organizations that it has met lately, and a scrape shows only those with the most.
"""

import time
from collections.abc import Callable, Mapping

SHOWN = 20  # organizations in a scrape
TRACKED = 1_000  # organizations that are counted; above it, the ones with the least load are forgotten
HALF_LIFE = 300.0  # seconds after which load counts half when organizations are compared
_OLDEST_ORIGIN = 500.0  # half-lives; the weight 2 ** 1024 is beyond what a float can hold


class _Load:
    """What was counted of one organization.

    total: since it is tracked. score: the same, but older load counts less. It is compared with the scores of others
    at one time, so it is stored as of `BusiestOrganizations._origin`.
    """

    __slots__ = ("score", "total")

    def __init__(self) -> None:
        self.total = 0
        self.score = 0.0


class BusiestOrganizations:
    """Counts one kind of load, such as events, by organization.

    An organization that leaves the busiest ones and comes back shows its whole total again, unless it was forgotten
    meanwhile: then its total begins at 0, as after a restart, which Prometheus' `rate` expects of a counter.
    """

    def __init__(
        self, *, shown: int = SHOWN, tracked: int = TRACKED, now: Callable[[], float] = time.monotonic
    ) -> None:
        """now: seconds of a clock that only rises."""
        self._shown = shown
        self._tracked = tracked
        self._now = now
        self._origin = now()
        self._loads: dict[str, _Load] = {}

    def add(self, name: str, amount: int) -> None:
        """Counts load of an organization."""
        load = self._loads.get(name)
        if load is None:
            load = self._loads[name] = _Load()
            if len(self._loads) > 2 * self._tracked:
                self._forget()
        load.total += amount
        age = (self._now() - self._origin) / HALF_LIFE
        if age > _OLDEST_ORIGIN:
            self._begin_anew(age)
            age = 0.0
        # Newer load counts more, instead of older load less: so nothing has to be updated as time passes.
        load.score += amount * 2.0**age

    def totals(self) -> Mapping[tuple[str, ...], float]:
        """The totals of the busiest organizations, by name."""
        self._forget()
        busiest = sorted(self._loads.items(), key=lambda item: item[1].score, reverse=True)
        return {(name,): load.total for name, load in busiest[: self._shown]}

    def _forget(self) -> None:
        """Forgets the organizations with the least load."""
        if len(self._loads) > self._tracked:
            busiest = sorted(self._loads.items(), key=lambda item: item[1].score, reverse=True)
            self._loads = dict(busiest[: self._tracked])

    def _begin_anew(self, age: float) -> None:
        """Makes the scores those of a new origin. age: of the present one, in half-lives."""
        for load in self._loads.values():
            load.score *= 2.0**-age
        self._origin += age * HALF_LIFE
