"""Reading customers' alert states, and the rows that a person wants to see of them: what is in alarm comes first."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import grpc

from cli.connection import UNARY_TIMEOUT, Metadata
from cli.words import measure_words, owner_words, to_datetime
from generated.tidemark.v1.account_service_pb2 import ListCustomersRequest
from generated.tidemark.v1.account_service_pb2_grpc import AccountServiceStub
from generated.tidemark.v1.alert_pb2 import CustomerAlert, CustomerAlertStatus, GaugeState
from generated.tidemark.v1.alert_service_pb2 import ListCustomerAlertsRequest
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub

PAGE_SIZE = 200  # of customers and of alerts
CONCURRENT_CALLS = 8

IN_ALARM = "in alarm"
EVALUATING = "evaluating"
OK = "ok"
NO_DATA = "no data"
DISABLED = "disabled"
_ORDER = (IN_ALARM, EVALUATING, DISABLED, OK, NO_DATA)


@dataclass(frozen=True)
class StateRow:
    """One gauge of one alert for one customer; an alert without data has one row without a gauge.

    next_level: the nearest threshold that is not reached. reached: how many are. changed: when it last changed.
    """

    status: str
    owner: str
    alert: str
    measure: str = ""
    value: Decimal | None = None
    next_level: Decimal | None = None
    reached: tuple[str, ...] = ()
    changed: datetime | None = None

    @property
    def nearness(self) -> Decimal:
        """The part of the way to the next level that is done; 0 where there is none."""
        if self.value is None or not self.next_level or self.next_level < 0:
            return Decimal(0)
        return max(Decimal(0), min(Decimal(1), self.value / self.next_level))


async def fetch(channel: grpc.aio.Channel, metadata: Metadata, customers: Sequence[str]) -> list[StateRow]:
    """The rows of these customers, of all of them when none is named."""
    names = list(customers) or [name async for name in _customers(channel, metadata)]
    room = asyncio.Semaphore(CONCURRENT_CALLS)

    async def of(name: str) -> list[CustomerAlert]:
        async with room:
            return [state async for state in _states(channel, metadata, name)]

    found = await asyncio.gather(*(of(name) for name in names))
    return in_order(row for states in found for state in states for row in rows(state))


def in_order(found: Iterable[StateRow]) -> list[StateRow]:
    """Alarms first, then what is nearest to its next level."""
    return sorted(found, key=lambda row: (_ORDER.index(row.status), -row.nearness, row.owner, row.alert, row.measure))


def rows(state: CustomerAlert) -> list[StateRow]:
    """The rows of one alert for one customer."""
    evaluating = state.status == CustomerAlertStatus.CUSTOMER_ALERT_STATUS_EVALUATING
    if not state.gauges:
        status = EVALUATING if evaluating else NO_DATA if state.no_data else OK
        return [StateRow(DISABLED if state.disabled_reason else status, state.customer_id, state.alert.name)]
    return [_row(state, gauge, evaluating) for gauge in state.gauges]


def _row(state: CustomerAlert, gauge: GaugeState, evaluating: bool) -> StateRow:
    reached = tuple(
        f"{threshold.threshold.code} {threshold.level}".lstrip()
        for threshold in gauge.thresholds
        if threshold.in_alarm
    )
    status = IN_ALARM if reached else EVALUATING if evaluating else OK
    return StateRow(
        status=status,
        owner=owner_words(gauge.gauge),
        alert=state.alert.name,
        measure=measure_words(gauge.gauge),
        value=Decimal(gauge.gauge.value),
        next_level=_next_level(gauge),
        reached=reached,
        changed=to_datetime(gauge.change_time) if gauge.HasField("change_time") else None,
    )


def _next_level(gauge: GaugeState) -> Decimal | None:
    """The nearest level that is not reached, of the fixed thresholds and the one that recurs."""
    fixed = [threshold for threshold in gauge.thresholds if threshold.threshold.value]
    ahead = [Decimal(threshold.threshold.value) for threshold in fixed if not threshold.in_alarm]
    # A percentage of a limit shows where its line is, if there is a limit.
    percents = [threshold for threshold in gauge.thresholds if threshold.threshold.percent_of_limit]
    ahead += [Decimal(threshold.level) for threshold in percents if threshold.level and not threshold.in_alarm]
    for threshold in gauge.thresholds:
        if threshold.threshold.recurring_step:
            foot = max((Decimal(other.threshold.value) for other in fixed), default=Decimal(0))
            start = Decimal(threshold.level) if threshold.in_alarm else foot
            ahead.append(start + Decimal(threshold.threshold.recurring_step))
    return min(ahead, default=None)


async def _customers(channel: grpc.aio.Channel, metadata: Metadata) -> AsyncIterator[str]:
    stub, token = AccountServiceStub(channel), ""
    while True:
        page = await stub.ListCustomers(
            ListCustomersRequest(page_size=PAGE_SIZE, page_token=token), metadata=metadata, timeout=UNARY_TIMEOUT
        )
        for customer in page.customers:
            yield customer.customer_id
        token = page.next_page_token
        if not token:
            return


async def _states(channel: grpc.aio.Channel, metadata: Metadata, customer_id: str) -> AsyncIterator[CustomerAlert]:
    stub, token = AlertServiceStub(channel), ""
    while True:
        page = await stub.ListCustomerAlerts(
            ListCustomerAlertsRequest(customer_id=customer_id, page_size=PAGE_SIZE, page_token=token),
            metadata=metadata,
            timeout=UNARY_TIMEOUT,
        )
        for state in page.customer_alerts:
            yield state
        token = page.next_page_token
        if not token:
            return
