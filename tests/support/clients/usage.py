"""Usage for the tests of clients: events of one customer, an alert that watches them, and what was counted."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal

from tests.support.clients.server import Server
from tests.support.databases import NOON
from tidemark_client import AsyncClient, usage_event
from tidemark_client.v1 import (
    Alert,
    AlertScope,
    AllCustomersScope,
    CreateAlertRequest,
    ListCustomerAlertsRequest,
    Threshold,
    UsageEvent,
    UsageThresholdReachedCondition,
)

CUSTOMER = "acme"
METRIC = "calls"
LIMIT = 60.0  # seconds, of everything that is waited for


def event(name: str = "", quantity: str = "1", customer_id: str = CUSTOMER) -> UsageEvent:
    """One use, at the time of the test's clock."""
    return usage_event(customer_id, METRIC, quantity, event_id=name, event_time=NOON)


def events(count: int, prefix: str = "e") -> list[UsageEvent]:
    """Events with different ids."""
    return [event(f"{prefix}-{number}") for number in range(count)]


@asynccontextmanager
async def watched(server: Server, *values: str) -> AsyncIterator[AsyncClient]:
    """A client, and an alert on the usage of all customers."""
    alert = Alert(
        display_name="Calls",
        scope=AlertScope(all_customers=AllCustomersScope()),
        usage_threshold_reached=UsageThresholdReachedCondition(metric_id=METRIC),
        thresholds=[Threshold(value=value) for value in values or ("1000000000",)],
    )
    async with AsyncClient(server.address, api_key=server.api_key, timeout=LIMIT) as client:
        await client.alerts.CreateAlert(CreateAlertRequest(alert=alert))
        yield client


async def counted(client: AsyncClient, customer_id: str = CUSTOMER) -> Decimal:
    """The usage that the alert sees."""
    answer = await client.alerts.ListCustomerAlerts(ListCustomerAlertsRequest(customer_id=customer_id))
    return sum((Decimal(one.gauge.value) for alert in answer.customer_alerts for one in alert.gauges), Decimal(0))


async def until(condition: Callable[[], object], seconds: float = LIMIT) -> None:
    """Waits until a function returns something true."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (what it waits for sets no event)
            await asyncio.sleep(0.01)
