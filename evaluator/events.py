"""Usage events, checked, with exact amounts."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple


class UsageEvent(NamedTuple):
    """One use of a metric by a customer.

    event_id: the caller's. Organization, customer, event_id and the calendar month (UTC) of event_time identify the
    event.
    event_time: when it happened, in UTC. quantity: in the metric's unit; negative for a correction.
    cost: before credits, in `currency`; both are set or neither is.
    properties: group keys, seat ids and others; may be empty. event_name: of a raw event, whose metric_id is empty.
    """

    event_id: str
    customer_id: str
    event_time: datetime
    metric_id: str
    quantity: Decimal
    subscription_id: str | None
    cost: Decimal | None
    currency: str | None
    properties: Mapping[str, str]
    event_name: str | None = None

    @property
    def identity(self) -> tuple[str, str]:
        """Its identity within the organization and the calendar month of its time."""
        return self.customer_id, self.event_id
