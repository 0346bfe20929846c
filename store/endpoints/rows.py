"""An endpoint as it is stored: its values and its columns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, and_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from store.tables.webhooks import endpoint
from webhooks.health import BreakerState, DisableReason

DEFAULT_MAX_IN_FLIGHT = 4  # attempts at one endpoint at a time, over all notifiers


class EndpointState(StrEnum):
    """Whether an endpoint gets deliveries."""

    ENABLED = "ENABLED"
    DISABLED = "DISABLED"


@dataclass(frozen=True)
class Settings:
    """What the caller sets of an endpoint. All values have been checked.

    rate_per_second: attempts; None without a limit. credentials: the value of the Authorization header.
    """

    url: str
    display_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    event_types: tuple[str, ...] = ()  # empty: every notification
    condition_types: tuple[str, ...] = ()  # empty: every condition
    headers: Mapping[str, str] = field(default_factory=dict)
    credentials: str | None = field(default=None, repr=False)
    rate_per_second: Decimal | None = None
    max_in_flight: int = DEFAULT_MAX_IN_FLIGHT


@dataclass(frozen=True)
class Endpoint:
    """A URL that an organization's notifications are posted to."""

    organization_id: int
    endpoint_id: str
    url: str
    display_name: str
    labels: Mapping[str, str]
    event_types: tuple[str, ...]  # empty: every notification
    condition_types: tuple[str, ...]  # empty: every condition
    headers: Mapping[str, str]
    has_credentials: bool
    rate_per_second: Decimal | None
    max_in_flight: int
    state: EndpointState
    disable_reason: DisableReason | None
    create_time: datetime
    update_time: datetime | None
    not_before: datetime | None  # the receiver asked for a pause
    breaker_state: BreakerState
    breaker_until: datetime | None
    failing_since: datetime | None
    failure_count: int
    last_success_time: datetime | None


COLUMNS = (
    endpoint.c.organization_id,
    endpoint.c.endpoint_id,
    endpoint.c.url,
    endpoint.c.display_name.label("display_name"),
    endpoint.c.labels.label("labels"),
    endpoint.c.event_types,
    endpoint.c.condition_types,
    endpoint.c.headers,
    endpoint.c.credentials.is_not(None).label("has_credentials"),
    endpoint.c.rate_per_second,
    endpoint.c.max_in_flight,
    endpoint.c.state,
    endpoint.c.disable_reason,
    endpoint.c.create_time,
    endpoint.c.update_time,
    endpoint.c.not_before,
    endpoint.c.breaker_state,
    endpoint.c.breaker_until,
    endpoint.c.failing_since,
    endpoint.c.failure_count,
    endpoint.c.last_success_time,
)

# The health of a new endpoint, of one that is enabled again, and of one with a new URL.
CLEAN_RECORD: Mapping[str, Any] = {
    "not_before": None,
    "throttle_count": 0,
    "breaker_state": BreakerState.CLOSED,
    "breaker_until": None,
    "breaker_failures": 0,
    "breaker_openings": 0,
    "breaker_window": None,
    "failing_since": None,
    "failure_count": 0,
    "warned_percent": 0,
    "exhaustion_noted": False,
}


def is_endpoint(organization_id: int, endpoint_id: str) -> ColumnElement[bool]:
    """The row of one endpoint, unless it was deleted: the rows of deleted endpoints stay."""
    return and_(
        endpoint.c.organization_id == organization_id,
        endpoint.c.endpoint_id == endpoint_id,
        endpoint.c.delete_time.is_(None),
    )


async def change(
    connection: AsyncConnection, organization_id: int, endpoint_id: str, values: Mapping[str, Any]
) -> Endpoint | None:
    """Writes those columns of an endpoint; None when there is none or it was deleted."""
    saved = await connection.execute(
        update(endpoint).where(is_endpoint(organization_id, endpoint_id)).values(**values).returning(*COLUMNS)
    )
    row = saved.mappings().one_or_none()
    return None if row is None else endpoint_from(row)


def endpoint_from(row: RowMapping) -> Endpoint:
    """The endpoint of a row with COLUMNS."""
    reason = row["disable_reason"]
    return Endpoint(
        **{
            **row,
            "event_types": tuple(row["event_types"]),
            "condition_types": tuple(row["condition_types"]),
            "state": EndpointState(row["state"]),
            "disable_reason": None if reason is None else DisableReason(reason),
            "breaker_state": BreakerState(row["breaker_state"]),
        },
    )
