"""One organization of the service, called with values of the reference model.

Changes go through the API. Commits go to the committer, because only there a test decides which batches share one.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, timedelta
from typing import Any

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from engine.ingest.batches import Batch, Outcome
from engine.ingest.commit import Committer
from engine.ingest.nodes import CommitNode
from engine.rules.registry import RulesRegistry
from evaluator.gauges import Measure
from generated.tidemark.v1 import (
    account_service_pb2,
    alert_pb2,
    alert_service_pb2,
    customer_pb2,
    subscription_pb2,
)
from store.identity.organizations import Organization
from store.postgres.database import Database
from tests.reference.alerts import Alert, Notification
from tests.reference.gauges import Event, Fields, Gauge, Metric
from tests.reference.thresholds import State
from tests.support.usage.caller import DEADLINE, Caller
from tests.support.usage.words import alert_of, event_of, measured_by, metric_of, notification_of, prices_of, state_of

GRACE = timedelta(days=34)
BACKFILL_DURATION = 0.008  # seconds; a request for its status during it only makes it longer


class Service:
    """What a caller does to its organization, and what the database holds afterwards."""

    def __init__(
        self, caller: Caller, database: Database, organization_id: int, node: CommitNode | None = None
    ) -> None:
        """node: of a cluster, at which commits run."""
        self.caller = caller
        organization = Organization(organization_id, caller.organization)
        self._committer = Committer(database, caller.clock, GRACE, RulesRegistry(), organization, node=node)
        self.alert_ids: dict[str, str] = {}

    async def put_metric(self, metric: Metric) -> None:
        """Registers a metric."""
        request = account_service_pb2.PutMetricRequest(metric=metric_of(metric))
        await self.caller.accounts.PutMetric(request, metadata=self.caller.metadata)

    async def put(self, customer: str, subscription: str | None, plan: str, fields: Fields = frozenset()) -> None:
        """Puts a customer or a subscription on a plan. fields: the custom fields of the subscription."""
        if subscription is None:
            await self.caller.put_customer(customer_pb2.Customer(customer_id=customer, plan_id=plan))
        else:
            await self.caller.put_subscription(
                subscription_pb2.Subscription(
                    customer_id=customer, subscription_id=subscription, plan_id=plan, custom_fields=dict(fields)
                )
            )

    async def create(self, alert: Alert) -> bool:
        """Creates an alert and waits for its first evaluation; False when another alert excludes it."""
        try:
            created = await self.caller.create_only(alert_of(alert), evaluate=alert.evaluate)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise
            return False
        self.alert_ids[alert.name] = created.alert_id
        await self._backfilled(created)
        return True

    async def _backfilled(self, alert: alert_pb2.Alert) -> None:
        """Waits until an alert is evaluated on all gauges."""
        if alert.evaluation_status == alert_pb2.EVALUATION_STATUS_EVALUATING:
            await asyncio.sleep(BACKFILL_DURATION)
            await self.caller.backfilled(alert.alert_id)

    async def edit(self, alert: Alert, paths: Sequence[str], title: str, *, reset: bool) -> None:
        """Changes an alert in the fields of the mask, and waits for its evaluation.

        title: its name for people.
        """
        changed = alert_of(alert)
        changed.display_name = title
        changed.alert_id = self.alert_ids[alert.name]
        request = alert_service_pb2.UpdateAlertRequest(alert=changed, update_mask=FieldMask(paths=paths))
        if reset:
            request.state_policy = alert_service_pb2.STATE_POLICY_RESET
        answer = await self.caller.alerts.UpdateAlert(request, metadata=self.caller.metadata, timeout=DEADLINE)
        await self._backfilled(answer.alert)

    async def switch(self, name: str, target: Sequence[str], *, on: bool) -> None:
        """Switches an alert on or off: as a whole, for a customer, or for a customer's subscription."""
        ids: dict[str, Any] = dict(zip(("customer_id", "subscription_id"), target, strict=False))
        alert_id, alerts = self.alert_ids[name], self.caller.alerts
        if on:
            enable = alert_service_pb2.EnableAlertRequest(alert_id=alert_id, **ids)
            answer = await alerts.EnableAlert(enable, metadata=self.caller.metadata, timeout=DEADLINE)
            await self._backfilled(answer.alert)
        else:
            disable = alert_service_pb2.DisableAlertRequest(alert_id=alert_id, **ids)
            await alerts.DisableAlert(disable, metadata=self.caller.metadata, timeout=DEADLINE)

    async def reset(self, name: str, customer: str) -> bool:
        """Resets an alert for a customer; False when the alert is not evaluated for it."""
        request = alert_service_pb2.ResetCustomerAlertRequest(alert_id=self.alert_ids[name], customer_id=customer)
        try:
            await self.caller.alerts.ResetCustomerAlert(request, metadata=self.caller.metadata, timeout=DEADLINE)
        except grpc.aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION):
                raise
            return False
        return True

    async def archive(self, name: str) -> None:
        """Ends an alert."""
        await self.caller.archive(self.alert_ids[name])

    async def commit(self, batches: Sequence[Sequence[Event]]) -> list[Outcome]:
        """Commits batches together."""
        return await self._committer.commit([Batch([event_of(event) for event in batch], True) for batch in batches])

    async def notifications(self) -> list[Notification]:
        """The stored notifications."""
        names = {alert_id: name for name, alert_id in self.alert_ids.items()}
        return [notification_of(names[one.alert_id], one.body["data"]) for one in await self.caller.evaluations()]

    async def states(self) -> dict[tuple[str, Gauge], State]:
        """The stored states of the alerts."""
        return await stored_states(self.caller, {alert_id: name for name, alert_id in self.alert_ids.items()})


async def stored_states(
    caller: Caller, names: Mapping[str, str], customer: str | None = None
) -> dict[tuple[str, Gauge], State]:
    """The stored states of alerts on the gauges of one customer, or of all. names: of the alerts, by id."""
    rows = await caller.rows(
        "SELECT s.alert_id, CASE WHEN s.alert_version < a.reset_version THEN '{}' ELSE s.reached END, s.sequence,"
        " g.customer_id, g.subscription_id, g.measure, g.group_values, g.period_start"
        " FROM alert_state s JOIN gauge g USING (organization_id, customer_id, gauge_id)"
        " JOIN alert a ON (a.organization_id, a.alert_id) = (s.organization_id, s.alert_id)"
        " WHERE s.organization_id = %(organization_id)s AND s.customer_id = coalesce(%(customer)s, s.customer_id)",
        customer=customer,
    )
    found = {}
    for alert_id, reached, sequence, customer_id, subscription_id, measure, group, start in rows:
        measured = Measure.from_key(measure, subscription_id is not None)
        gauge = Gauge(
            customer_id,
            subscription_id,
            measured_by(measured),
            tuple((key, value) for key, value in group),
            start.astimezone(UTC),
            prices_of(measured),
            frozenset(measured.contract_fields),
        )
        found[names[alert_id], gauge] = state_of(reached, sequence)
    return found
