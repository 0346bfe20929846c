"""Usage events: what a caller streams, checked and exact."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple


class UsageEvent(NamedTuple):
    """One use of something by a customer.

    event_id: the caller's; with organization and customer the identity by which a resend is known, within the
    calendar month (UTC) of event_time.
    event_time: when it happened, in UTC. quantity: in the metric's unit; negative for a correction.
    cost: what it costs before credits, in `currency`; both are set or neither is.
    properties: group keys, seat ids and the like; empty when there are none.
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

    @property
    def identity(self) -> tuple[str, str]:
        """What makes it the same event as another of the same organization."""
        return self.customer_id, self.event_id
