"""Usage events, checked, with exact amounts."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, Self


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

    @property
    def reservation_id(self) -> str | None:
        """The reservation that it settles; None: it settles none."""
        return None


class SettlingEvent(UsageEvent):
    """An event that settles a reservation.

    It has the same columns, so that all other events cost what they cost without reservations.
    """

    _settled: str

    @classmethod
    def of(cls, event: UsageEvent, reservation_id: str) -> Self:
        """The event, which settles that reservation."""
        made = cls._make(event)
        made._settled = reservation_id
        return made

    @property
    def reservation_id(self) -> str:
        """The reservation that it settles."""
        return self._settled

    def _replace(self, **changed: Any) -> Self:
        return self.of(super()._replace(**changed), self._settled)
