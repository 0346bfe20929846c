"""Aggregations: how the events of one metric become the value of a gauge."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from evaluator.amounts import ZERO


class Aggregation(StrEnum):
    """How the events of a metric become one number for a period."""

    SUM = "SUM"  # of the quantities; a correction subtracts
    COUNT = "COUNT"  # of the events; a correction subtracts one
    MAX = "MAX"  # the largest quantity
    LATEST = "LATEST"  # the quantity of the event with the latest time; of several, the one with the greatest id
    UNIQUE_COUNT = "UNIQUE_COUNT"  # of the distinct values of one property

    @property
    def additive(self) -> bool:
        """Whether each event adds an amount that does not depend on the value before it."""
        return self is Aggregation.SUM or self is Aggregation.COUNT


@dataclass(slots=True)
class Tally:
    """A gauge's value, and what its aggregation needs to continue.

    latest_time, latest_id: of the event whose quantity is the LATEST; MAX keeps the time of its last event.
    unseen: for UNIQUE_COUNT, the values of the events to add that are not counted yet; `add` removes them.
    """

    value: Decimal = ZERO
    latest_time: datetime | None = None
    latest_id: str | None = None
    unseen: set[str] = field(default_factory=set)

    def add(
        self, aggregation: Aggregation, amount: Decimal, time: datetime, event_id: str, unique_value: str | None
    ) -> None:
        """Counts one event; `amount` is its `contribution`. Must run under `exact_arithmetic`.

        The value after all events does not depend on their order. Ids are compared code point by code point, as
        PostgreSQL does in collation "C".
        """
        if aggregation.additive:
            self.value += amount
        elif aggregation is Aggregation.MAX:
            # A period's first event counts whatever its sign: a maximum of nothing is not zero.
            self.value = amount if self.latest_time is None else max(self.value, amount)
            self.latest_time = time
        elif aggregation is Aggregation.LATEST:
            if self.latest_time is None or (time, event_id) > (self.latest_time, self.latest_id or ""):
                self.value, self.latest_time, self.latest_id = amount, time, event_id
        elif unique_value in self.unseen:
            self.unseen.discard(unique_value)
            self.value += amount


def contribution(aggregation: Aggregation, quantity: Decimal) -> Decimal:
    """The amount that one event of `quantity` adds to a gauge of that aggregation."""
    if aggregation is Aggregation.COUNT:
        return Decimal(-1) if quantity < 0 else Decimal(1)
    if aggregation is Aggregation.UNIQUE_COUNT:
        return Decimal(1)
    return quantity
