"""Reads the states of customer alerts, in one or two calls for any number of customers."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import grpc

from cli.client.connection import UNARY_TIMEOUT, Metadata
from cli.watch.state_rows import IN_ALARM, StateRow, sort_rows, state_rows
from generated.tidemark.v1.alert_service_pb2 import (
    ListCustomerAlertsRequest,
    SummarizeCustomerAlertsRequest,
    SummarizeCustomerAlertsResponse,
)
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.customer_alert_pb2 import CustomerAlert, CustomerAlertStatus

PAGE_SIZE = 200  # entries of one call
MAX_CALM = 200  # entries that are not in alarm; those that are nearest to a threshold fill the screen
REUSE_FACTOR = 10  # totals are reused for so many times as long as it took to read them; so are calm rows
SHORTEST_REUSE = 1.0  # seconds for which totals are reused at least


@dataclass(frozen=True)
class StateFilter:
    """What to read: these customers and alerts, all of them if there are none; or only gauges that are in alarm."""

    customers: Sequence[str] = ()
    alerts: Sequence[str] = ()
    only_alarms: bool = False


@dataclass(frozen=True)
class Frame:
    """Rows in the order in which they are shown.

    has_more: there are other rows. totals: of all customers and alerts that match the filters.
    """

    rows: Sequence[StateRow] = ()
    has_more: bool = False
    totals: SummarizeCustomerAlertsResponse = field(default_factory=SummarizeCustomerAlertsResponse)

    @property
    def in_alarm(self) -> int:
        """The number of gauges that are in alarm."""
        return sum(one.gauge_count for one in self.totals.alerts)


class StateReader:
    """Reads frames from a server. page_size: entries of one call."""

    def __init__(
        self, channel: grpc.aio.Channel, metadata: Metadata, filters: StateFilter, *, page_size: int = PAGE_SIZE
    ) -> None:
        self._page_size = page_size
        self._stub = AlertServiceStub(channel)
        self._metadata = metadata
        self._filters = filters
        self._totals = SummarizeCustomerAlertsResponse()
        self._totals_due = 0.0
        self._calm_rows: list[StateRow] = []
        self._has_more_calm_rows = False
        self._calm_rows_due = 0.0

    async def read_screen(self, row_count: int) -> Frame:
        """At most `row_count` rows: the latest gauges in alarm, then others if few gauges are in alarm.

        Gauges in alarm are read each time; totals and other rows less often if they take long. Raises AioRpcError.
        """
        alarms, has_more = await self._read(row_count, [CustomerAlertStatus.CUSTOMER_ALERT_STATUS_IN_ALARM])
        await self._refresh_totals()
        calm_rows: list[StateRow] = []
        if len(alarms) < row_count and not self._filters.only_alarms:
            await self._refresh_calm_rows()
            calm_rows = self._calm_rows
            has_more = has_more or self._has_more_calm_rows or len(alarms) + len(calm_rows) > row_count
        return Frame(sort_rows([*alarms, *calm_rows])[:row_count], has_more, self._totals)

    async def read_all(self, limit: int) -> Frame:
        """Every row, up to `limit`; without totals. Raises AioRpcError."""
        statuses = [CustomerAlertStatus.CUSTOMER_ALERT_STATUS_IN_ALARM] if self._filters.only_alarms else []
        found, has_more = await self._read(limit, statuses)
        return Frame(sort_rows(found), has_more)

    async def _refresh_totals(self) -> None:
        clock = asyncio.get_running_loop().time
        if (started := clock()) < self._totals_due:
            return
        request = SummarizeCustomerAlertsRequest(customer_ids=self._filters.customers, alert_ids=self._filters.alerts)
        self._totals = await self._stub.SummarizeCustomerAlerts(
            request, metadata=self._metadata, timeout=UNARY_TIMEOUT
        )
        self._totals_due = clock() + max(SHORTEST_REUSE, REUSE_FACTOR * (clock() - started)) - SHORTEST_REUSE / 2

    async def _refresh_calm_rows(self) -> None:
        """Reads the rows that are not in alarm, unless the last ones can be reused."""
        clock = asyncio.get_running_loop().time
        if (started := clock()) < self._calm_rows_due:
            return
        # Without a filter by status the server lists gauges in alarm first; they are few, or this is not called.
        found, self._has_more_calm_rows = await self._read(MAX_CALM, [])
        self._calm_rows = [row for row in found if row.status != IN_ALARM]
        self._calm_rows_due = clock() + REUSE_FACTOR * (clock() - started)

    async def _read(
        self, limit: int, statuses: Sequence[CustomerAlertStatus.ValueType]
    ) -> tuple[list[StateRow], bool]:
        """Up to `limit` rows, and whether there are more rows."""
        found: list[StateRow] = []
        async for state in self._states(limit + 1, statuses):
            found += state_rows(state)
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
                customer_ids=self._filters.customers,
                alert_ids=self._filters.alerts,
                statuses=statuses,
            )
            page = await self._stub.ListCustomerAlerts(request, metadata=self._metadata, timeout=UNARY_TIMEOUT)
            for state in page.customer_alerts:
                yield state
            token = page.next_page_token
            if not token:
                return
