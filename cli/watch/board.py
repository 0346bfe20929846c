"""What the live table shows, read in one or two calls however many customers there are."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import grpc

from cli.client.connection import UNARY_TIMEOUT, Metadata
from cli.watch.states import IN_ALARM, StateRow, in_order, rows
from generated.tidemark.v1.alert_pb2 import CustomerAlert, CustomerAlertStatus
from generated.tidemark.v1.alert_service_pb2 import (
    ListCustomerAlertsRequest,
    SummarizeCustomerAlertsRequest,
    SummarizeCustomerAlertsResponse,
)
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub

PAGE_SIZE = 200  # entries of one call
MAX_REST = 200  # entries that are not in alarm; the nearest to a threshold among them fill the screen
SHARE = 10  # times as long as the totals, or the rest, took to read they stand before they are read anew
SHORTEST_AGE = 1.0  # seconds


@dataclass(frozen=True)
class Narrowed:
    """What is watched: these customers and alerts, all where there is none; only what is in alarm."""

    customers: Sequence[str] = ()
    alerts: Sequence[str] = ()
    only_alarms: bool = False


@dataclass(frozen=True)
class Frame:
    """Rows in the order in which they are shown. more: there are others. totals: over all customers watched."""

    rows: Sequence[StateRow] = ()
    more: bool = False
    totals: SummarizeCustomerAlertsResponse = field(default_factory=SummarizeCustomerAlertsResponse)

    @property
    def in_alarm(self) -> int:
        """How many gauges are in alarm."""
        return sum(one.gauge_count for one in self.totals.alerts)


class Board:
    """Reads frames from a server. cost: seconds that the caller's last look took. page_size: entries of one call."""

    def __init__(
        self, channel: grpc.aio.Channel, metadata: Metadata, narrowed: Narrowed, *, page_size: int = PAGE_SIZE
    ) -> None:
        self._page_size = page_size
        self._stub = AlertServiceStub(channel)
        self._metadata = metadata
        self._narrowed = narrowed
        self._totals = SummarizeCustomerAlertsResponse()
        self._totals_due = 0.0
        self._rest: list[StateRow] = []
        self._rest_cut_off = False
        self._rest_due = 0.0
        self.cost = 0.0

    async def look(self, room: int) -> Frame:
        """What fits into so many rows: of the alarms the latest; beside few alarms what is not in alarm.

        What takes long is read less often than the alarms. Raises AioRpcError.
        """
        alarms, more = await self._read(room, [CustomerAlertStatus.CUSTOMER_ALERT_STATUS_IN_ALARM])
        await self._refresh_totals()
        rest: list[StateRow] = []
        if len(alarms) < room and not self._narrowed.only_alarms:
            rest, cut_off = await self._refreshed_rest()
            more = more or cut_off or len(alarms) + len(rest) > room
        return Frame(in_order([*alarms, *rest])[:room], more, self._totals)

    async def whole(self, limit: int) -> Frame:
        """Everything, up to so many rows. Raises AioRpcError."""
        statuses = [CustomerAlertStatus.CUSTOMER_ALERT_STATUS_IN_ALARM] if self._narrowed.only_alarms else []
        found, more = await self._read(limit, statuses)
        return Frame(in_order(found), more)

    async def _refresh_totals(self) -> None:
        clock = asyncio.get_running_loop().time
        if (began := clock()) < self._totals_due:
            return
        request = SummarizeCustomerAlertsRequest(
            customer_ids=self._narrowed.customers, alert_ids=self._narrowed.alerts
        )
        self._totals = await self._stub.SummarizeCustomerAlerts(
            request, metadata=self._metadata, timeout=UNARY_TIMEOUT
        )
        self._totals_due = clock() + max(SHORTEST_AGE, SHARE * (clock() - began)) - SHORTEST_AGE / 2

    async def _refreshed_rest(self) -> tuple[list[StateRow], bool]:
        """The rows that are not in alarm; whether there are more of them."""
        clock = asyncio.get_running_loop().time
        if (began := clock()) >= self._rest_due:
            # Without statuses alarms come before the rest: those in alarm on fewer gauges than fit are few.
            found, self._rest_cut_off = await self._read(MAX_REST, [])
            self._rest = [row for row in found if row.status != IN_ALARM]
            self._rest_due = clock() + SHARE * (clock() - began)
        return self._rest, self._rest_cut_off

    async def _read(
        self, limit: int, statuses: Sequence[CustomerAlertStatus.ValueType]
    ) -> tuple[list[StateRow], bool]:
        """Up to `limit` rows, and whether there are more."""
        found: list[StateRow] = []
        async for state in self._states(limit + 1, statuses):
            found += rows(state)
            if len(found) > limit:
                return found[:limit], True
        return found, False

    async def _states(
        self, limit: int, statuses: Sequence[CustomerAlertStatus.ValueType]
    ) -> AsyncIterator[CustomerAlert]:
        token = ""
        while True:
            request = ListCustomerAlertsRequest(
                page_size=min(limit, self._page_size),
                page_token=token,
                customer_ids=self._narrowed.customers,
                alert_ids=self._narrowed.alerts,
                statuses=statuses,
            )
            page = await self._stub.ListCustomerAlerts(request, metadata=self._metadata, timeout=UNARY_TIMEOUT)
            for state in page.customer_alerts:
                yield state
            token = page.next_page_token
            if not token:
                return
