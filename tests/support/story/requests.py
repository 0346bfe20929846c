"""The requests of the story's changes: singly, or several in one batch call."""

import asyncio
import itertools
from collections.abc import Sequence
from fractions import Fraction
from random import Random
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from generated.tidemark.v1 import (
    account_service_pb2,
    alert_pb2,
    alert_service_pb2,
    customer_pb2,
    limit_pb2,
    subscription_pb2,
)
from tests.reference.alerts import Alert
from tests.reference.gauges import Fields, Gauge, Metric
from tests.reference.thresholds import State
from tests.support.story.draws import Measure
from tests.support.story.feed import Names
from tests.support.story.servers import Servers
from tests.support.usage.caller import DEADLINE, Caller
from tests.support.usage.service import stored_states
from tests.support.usage.words import alert_of, decimal_of, metric_of

PATIENCE = 120.0  # seconds that a client waits for a backfill


class Requests:
    """Calls of one client to any of the servers, each of which is safe to repeat."""

    def __init__(self, servers: Servers, random: Random, name: str) -> None:
        self._servers = servers
        self._random = random
        self._name = name
        self._number = 0

    def _request_id(self) -> str:
        self._number += 1
        return f"{self._name}-request-{self._number}"

    async def _call(self, service: str, method: str, request: Any) -> Any:
        def make(caller: Caller) -> Any:
            stub = caller.alerts if service == "alerts" else caller.accounts
            return getattr(stub, method)(request, metadata=caller.metadata, timeout=DEADLINE)

        return await self._servers.call(self._random, make)

    async def create(self, alerts: Sequence[Alert], keys: Sequence[str], *, again: bool) -> list[alert_pb2.Alert]:
        """Creates alerts, in one batch unless it is a single one. keys: the uniqueness key of each. again: sends the
        request twice; the second answer must repeat the first."""
        wanted = []
        for alert, key in zip(alerts, keys, strict=True):
            shown = alert_of(alert)
            shown.uniqueness_key = key
            wanted.append(alert_service_pb2.CreateAlertRequest(alert=shown, evaluate_on_create=alert.evaluate))
        single = len(wanted) == 1
        request: Any = wanted[0] if single else alert_service_pb2.BatchCreateAlertsRequest(requests=wanted)
        request.request_id = self._request_id()
        method = "CreateAlert" if single else "BatchCreateAlerts"
        answer = await self._call("alerts", method, request)
        created = [answer.alert] if single else list(answer.alerts)
        if again:
            answer = await self._call("alerts", method, request)
            assert answer.replayed
            repeated = [answer.alert] if single else list(answer.alerts)
            assert [one.alert_id for one in repeated] == [one.alert_id for one in created]
        return created

    async def edit(self, alerts: Sequence[tuple[str, Alert]], *, reset: bool) -> list[alert_pb2.Alert]:
        """Gives alerts, each after its id, other thresholds. reset: they forget what they have found."""
        request = alert_service_pb2.BatchUpdateAlertsRequest(request_id=self._request_id())
        for alert_id, alert in alerts:
            changed = alert_of(alert)
            changed.alert_id = alert_id
            update = request.requests.add(alert=changed, update_mask=FieldMask(paths=["thresholds"]))
            if reset:
                update.state_policy = alert_service_pb2.STATE_POLICY_RESET
        # A reset notifies again, so that only the request id makes it safe to repeat; other edits are.
        if len(alerts) == 1 and not reset:
            return [(await self._call("alerts", "UpdateAlert", request.requests[0])).alert]
        return list((await self._call("alerts", "BatchUpdateAlerts", request)).alerts)

    async def switch(self, alert_id: str, target: Sequence[str], *, on: bool) -> alert_pb2.Alert:
        """Enables or disables an alert: as a whole, for a customer, or for a customer's subscription."""
        ids: dict[str, Any] = dict(zip(("customer_id", "subscription_id"), target, strict=False))
        kind = alert_service_pb2.EnableAlertRequest if on else alert_service_pb2.DisableAlertRequest
        answer = await self._call("alerts", "EnableAlert" if on else "DisableAlert", kind(alert_id=alert_id, **ids))
        found: alert_pb2.Alert = answer.alert
        return found

    async def archive(self, alert_ids: Sequence[str]) -> None:
        """Ends alerts, whose uniqueness keys become free."""
        wanted = [
            alert_service_pb2.ArchiveAlertRequest(alert_id=one, release_uniqueness_key=True) for one in alert_ids
        ]
        if len(wanted) == 1:
            await self._call("alerts", "ArchiveAlert", wanted[0])
        else:
            batch = alert_service_pb2.BatchArchiveAlertsRequest(requests=wanted, request_id=self._request_id())
            await self._call("alerts", "BatchArchiveAlerts", batch)

    async def put(self, customer: str, subscription: str | None, plan: str, fields: Fields) -> None:
        """Puts a customer, or a subscription with its custom fields, on a plan."""
        if subscription is None:
            one = customer_pb2.Customer(customer_id=customer, plan_id=plan)
            await self._call("accounts", "PutCustomer", account_service_pb2.PutCustomerRequest(customer=one))
        else:
            other = subscription_pb2.Subscription(
                customer_id=customer, subscription_id=subscription, plan_id=plan, custom_fields=dict(fields)
            )
            request = account_service_pb2.PutSubscriptionRequest(subscription=other)
            await self._call("accounts", "PutSubscription", request)

    async def put_metric(self, metric: Metric) -> None:
        """Registers a metric."""
        await self._call("accounts", "PutMetric", account_service_pb2.PutMetricRequest(metric=metric_of(metric)))

    async def put_limit(self, holder: tuple[str, str], measure: Measure, amount: Fraction | None) -> None:
        """Puts a limit of a customer or a plan, or removes it."""
        limit = limit_pb2.Limit(
            limit_id=f"{holder} {measure}", amount="" if amount is None else f"{decimal_of(amount):f}"
        )
        if holder[0] == "plan":
            limit.plan.plan_id = holder[1]
        else:
            limit.customer.customer_id = holder[1]
        if measure[0] == "cost":
            limit.spend.currency = measure[1]
        else:
            limit.quantity.metric_id = measure[1]
        await self._call("accounts", "PutLimit", account_service_pb2.PutLimitRequest(limit=limit))

    async def evaluated(self, alert_id: str) -> None:
        """Waits until an alert is evaluated on all gauges."""
        request = alert_service_pb2.GetAlertRequest(alert_id=alert_id)

        async with asyncio.timeout(PATIENCE):
            for tries in itertools.count():
                answer = await self._call("alerts", "GetAlert", request)
                if answer.alert.evaluation_status == alert_pb2.EVALUATION_STATUS_DONE:
                    return
                await asyncio.sleep(min(0.01 * 2**tries, 0.2))

    async def customer_alerts(self, customer: str) -> Any:
        """The states of all alerts of a customer."""
        request = alert_service_pb2.ListCustomerAlertsRequest(customer_id=customer, page_size=1000)
        return (await self._call("alerts", "ListCustomerAlerts", request)).customer_alerts

    async def stored_states(self, customer: str, names: Names) -> dict[tuple[str, Gauge], State]:
        """The states of the customer's alerts as they are in the database."""
        caller = self._servers.caller(0)
        return await stored_states(caller, names.by_id, customer)

    async def void(self, keys: Sequence[Any]) -> Any:
        """Takes events back."""
        request = alert_service_pb2.VoidUsageEventsRequest(events=keys, request_id=self._request_id())
        return await self._call("alerts", "VoidUsageEvents", request)

    async def notifications(self) -> list[Any]:
        """The whole history, page by page."""
        found: list[Any] = []
        request = alert_service_pb2.ListNotificationsRequest(page_size=1000)
        while True:
            answer = await self._call("alerts", "ListNotifications", request)
            found += answer.notifications
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token
