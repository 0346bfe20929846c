"""A client of one organization: alerts in protobuf's text format, short forms of usage, errors with details."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import grpc
from google.protobuf import text_format
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2, status_pb2

from generated.tidemark.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    alert_change_pb2,
    alert_pb2,
    alert_service_pb2_grpc,
    customer_alert_pb2,
    explanation_pb2,
)
from generated.tidemark.v1 import alert_service_pb2 as messages
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.usage_pb2 import UsageOutcome
from server.calls.validation import to_timestamp


def update_request(alert: str, *paths: str, **fields: Any) -> messages.UpdateAlertRequest:
    """A request to change an alert that is written in text format."""
    mask = FieldMask(paths=paths) if paths else None
    return messages.UpdateAlertRequest(alert=text_format.Parse(alert, alert_pb2.Alert()), update_mask=mask, **fields)


@dataclass
class Refused:
    """The error of a refused call."""

    code: grpc.StatusCode | None = None
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)


@asynccontextmanager
async def refused() -> AsyncIterator[Refused]:
    """Fails unless the block's call is refused; the yielded value is filled in at the end of the block."""
    found = Refused()
    try:
        yield found
    except grpc.aio.AioRpcError as error:
        found.code = error.code()
        status = status_pb2.Status()
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                status.ParseFromString(value if isinstance(value, bytes) else value.encode())
        for detail in status.details:
            info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
            if detail.Unpack(info):
                assert info.domain == "tidemark.dev"
                found.reason, found.metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(bad):
                found.paths = [violation.field for violation in bad.field_violations]
    else:
        raise AssertionError("the call was not refused")


class Client:
    """Calls for one organization."""

    def __init__(self, channel: grpc.aio.Channel, key: str) -> None:
        self._alerts: AlertServiceStub = alert_service_pb2_grpc.AlertServiceStub(channel)
        self._accounts = account_service_pb2_grpc.AccountServiceStub(channel)
        self._metadata = (("authorization", f"Bearer {key}"),)

    async def create(
        self, alert: str, request_id: str = "", evaluate_on_create: bool | None = None
    ) -> alert_pb2.Alert:
        """Creates an alert that is written in text format."""
        return (await self.creation(alert, request_id=request_id, evaluate_on_create=evaluate_on_create)).alert

    async def creation(self, alert: str, **fields: Any) -> messages.CreateAlertResponse:
        """The whole answer to the creation of an alert that is written in text format."""
        request = messages.CreateAlertRequest(alert=text_format.Parse(alert, alert_pb2.Alert()), **fields)
        return await self._alerts.CreateAlert(request, metadata=self._metadata)

    async def get(self, alert_id: str) -> alert_pb2.Alert:
        request = messages.GetAlertRequest(alert_id=alert_id)
        return (await self._alerts.GetAlert(request, metadata=self._metadata)).alert

    async def update(self, alert: str, *paths: str, **fields: Any) -> messages.UpdateAlertResponse:
        """Changes an alert that is written in text format, in the fields of the mask, if there are any."""
        request = update_request(alert, *paths, **fields)
        return await self._alerts.UpdateAlert(request, metadata=self._metadata)

    async def batch_create(self, *alerts: str, **fields: Any) -> messages.BatchCreateAlertsResponse:
        """Creates alerts that are written in text format."""
        created = [messages.CreateAlertRequest(alert=text_format.Parse(one, alert_pb2.Alert())) for one in alerts]
        request = messages.BatchCreateAlertsRequest(requests=created, **fields)
        return await self._alerts.BatchCreateAlerts(request, metadata=self._metadata)

    async def batch_update(
        self, *updates: messages.UpdateAlertRequest, **fields: Any
    ) -> messages.BatchUpdateAlertsResponse:
        request = messages.BatchUpdateAlertsRequest(requests=updates, **fields)
        return await self._alerts.BatchUpdateAlerts(request, metadata=self._metadata)

    async def batch_archive(
        self, *archived: messages.ArchiveAlertRequest, **fields: Any
    ) -> messages.BatchArchiveAlertsResponse:
        request = messages.BatchArchiveAlertsRequest(requests=archived, **fields)
        return await self._alerts.BatchArchiveAlerts(request, metadata=self._metadata)

    async def changes(self, alert_id: str) -> list[alert_change_pb2.AlertChange]:
        """The changes of an alert, the newest first."""
        request = messages.ListAlertChangesRequest(alert_id=alert_id)
        return list((await self._alerts.ListAlertChanges(request, metadata=self._metadata)).changes)

    async def archive(self, alert_id: str, release: bool = False, **fields: Any) -> alert_pb2.Alert:
        request = messages.ArchiveAlertRequest(alert_id=alert_id, release_uniqueness_key=release, **fields)
        return (await self._alerts.ArchiveAlert(request, metadata=self._metadata)).alert

    async def list(self, **fields: Any) -> messages.ListAlertsResponse:
        return await self._alerts.ListAlerts(messages.ListAlertsRequest(**fields), metadata=self._metadata)

    async def customer_alert(self, alert_id: str, customer_id: str) -> customer_alert_pb2.CustomerAlert:
        request = messages.GetCustomerAlertRequest(alert_id=alert_id, customer_id=customer_id)
        return (await self._alerts.GetCustomerAlert(request, metadata=self._metadata)).customer_alert

    async def explain(
        self, alert_id: str, customer_id: str, **fields: Any
    ) -> explanation_pb2.CustomerAlertExplanation:
        request = messages.ExplainCustomerAlertRequest(alert_id=alert_id, customer_id=customer_id, **fields)
        return (await self._alerts.ExplainCustomerAlert(request, metadata=self._metadata)).explanation

    async def customer_alerts(self, customer_id: str, **fields: Any) -> messages.ListCustomerAlertsResponse:
        request = messages.ListCustomerAlertsRequest(customer_id=customer_id, **fields)
        return await self._alerts.ListCustomerAlerts(request, metadata=self._metadata)

    async def summary(self, **fields: Any) -> messages.SummarizeCustomerAlertsResponse:
        request = messages.SummarizeCustomerAlertsRequest(**fields)
        return await self._alerts.SummarizeCustomerAlerts(request, metadata=self._metadata)

    async def disable(self, alert_id: str, customer_id: str = "", **fields: Any) -> alert_pb2.Alert:
        request = messages.DisableAlertRequest(alert_id=alert_id, customer_id=customer_id, **fields)
        return (await self._alerts.DisableAlert(request, metadata=self._metadata)).alert

    async def enable(self, alert_id: str, **fields: Any) -> alert_pb2.Alert:
        request = messages.EnableAlertRequest(alert_id=alert_id, **fields)
        return (await self._alerts.EnableAlert(request, metadata=self._metadata)).alert

    async def release(self, alert_id: str, **fields: Any) -> alert_pb2.Alert:
        request = messages.ReleaseUniquenessKeyRequest(alert_id=alert_id, **fields)
        return (await self._alerts.ReleaseUniquenessKey(request, metadata=self._metadata)).alert

    async def reset(self, alert_id: str, customer_id: str, **fields: Any) -> customer_alert_pb2.CustomerAlert:
        request = messages.ResetCustomerAlertRequest(alert_id=alert_id, customer_id=customer_id, **fields)
        return (await self._alerts.ResetCustomerAlert(request, metadata=self._metadata)).customer_alert

    async def put(self, customer: str = "", subscription: str = "", limit: str = "") -> None:
        """Puts a customer, a subscription or a limit that is written in text format."""
        if customer:
            request = account_service_pb2.PutCustomerRequest()
            text_format.Parse(customer, request.customer)
            await self._accounts.PutCustomer(request, metadata=self._metadata)
        if subscription:
            other = account_service_pb2.PutSubscriptionRequest()
            text_format.Parse(subscription, other.subscription)
            await self._accounts.PutSubscription(other, metadata=self._metadata)
        if limit:
            third = account_service_pb2.PutLimitRequest()
            text_format.Parse(limit, third.limit)
            await self._accounts.PutLimit(third, metadata=self._metadata)

    async def use(self, time: datetime, *events: str) -> UsageOutcome:
        """Sends usage events in text format, all with that time; fails when one is rejected."""
        request = messages.EvaluateUsageBatchRequest()
        for event in events:
            text_format.Parse(event, request.batch.events.add(event_time=to_timestamp(time)))
        answer = await self._alerts.EvaluateUsageBatch(request, metadata=self._metadata)
        assert not answer.outcome.rejected
        return answer.outcome

    async def settled(self, *alert_ids: str) -> None:
        """Waits until the backfills of the alerts are complete."""
        async with asyncio.timeout(30):
            waiting = list(alert_ids)
            while waiting:
                if (await self.get(waiting[0])).evaluation_status == alert_pb2.EVALUATION_STATUS_DONE:
                    waiting.pop(0)
                else:
                    await asyncio.sleep(0.02)


async def outcomes(calls: Iterable[Awaitable[alert_pb2.Alert]]) -> tuple[list[alert_pb2.Alert], list[Refused]]:
    """Makes the calls concurrently; returns the answers and the errors."""

    async def one(call: Awaitable[alert_pb2.Alert]) -> alert_pb2.Alert | Refused:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            async with refused() as found:
                raise error
        return found

    done = await asyncio.gather(*map(one, calls))
    return (
        [each for each in done if isinstance(each, alert_pb2.Alert)],
        [each for each in done if isinstance(each, Refused)],
    )
