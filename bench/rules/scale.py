"""How large a run is: the numbers of alerts and customers, and how long and how often something is measured."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """factor: multiplies the numbers of alerts and customers. Less than 1 measures shorter and less often, too.

    large: alerts of the large database instead of a million times the factor.
    """

    factor: float = 1.0
    large: int | None = None

    @property
    def alerts(self) -> int:
        """Alerts of the large database, one for each of as many customers."""
        return self._of(1_000_000) if self.large is None else self.large

    @property
    def active(self) -> int:
        """Customers that send usage."""
        return self._of(10_000)

    @property
    def created(self) -> int:
        """Alerts that are created at once, and alerts beside which facts are put."""
        return self._of(10_000)

    @property
    def covered(self) -> int:
        """Customers that a new alert of all customers covers; each has one gauge that it watches."""
        return self._of(50_000)

    @property
    def seconds(self) -> float:
        """The length of one measurement that has no end of its own."""
        return 4.0 if self.factor >= 1 else 2.0

    @property
    def rounds(self) -> int:
        """How often measurements that are compared alternate."""
        return 3 if self.factor >= 1 else 2

    def _of(self, number: int) -> int:
        return max(10, round(number * self.factor))
