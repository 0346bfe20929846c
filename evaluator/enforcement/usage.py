"""Usage that is asked for: what an event would have, before it happens."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from evaluator.aggregation import Aggregation, contribution
from evaluator.balances import Unit


@dataclass(slots=True)  # not frozen: it is made for each request, and that takes three times as long
class Usage:
    """Usage of a metric by a customer. It is not changed.

    quantity: in the metric's unit, at least 0. cost: in `currency`, at least 0; None: it costs nothing.
    currency: None where it has no cost, or that of its customer or subscription applies. event_time: when it happens,
    in UTC; None: when the request is decided.
    """

    customer_id: str
    metric_id: str
    quantity: Decimal
    cost: Decimal | None
    currency: str | None
    subscription_id: str | None
    properties: Mapping[str, str]
    event_time: datetime | None = None


def metered(usage: Usage, aggregation: Aggregation) -> Iterator[tuple[Unit, Decimal]]:
    """The amounts that meters count of a usage whose currency is set, each with its unit.

    Of a metric whose aggregation is not additive, nothing is counted in the metric's own unit.
    """
    if aggregation.additive:
        yield Unit(metric_id=usage.metric_id), contribution(aggregation, usage.quantity)
    if usage.cost is not None:
        yield Unit(currency=usage.currency), usage.cost
