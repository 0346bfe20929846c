"""What an organization has before it floods: a customer with many groups, alerts, notifications and deliveries."""

import asyncio
import contextlib
from decimal import Decimal

import psycopg

from bench.support import load
from bench.support.sending import channel
from bench.support.stack import PostgreSQL, Stack
from evaluator.events import UsageEvent
from generated.tidemark.v1 import (
    alert_pb2,
    alert_service_pb2,
    condition_pb2,
    endpoint_pb2,
    filter_pb2,
    scope_pb2,
    threshold_pb2,
    usage_pb2,
    webhook_service_pb2,
)
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub

GROUPS = 4_900  # of the customer that is listed; 5,000 would disable its alerts
GROUPED_ALERTS = 31  # that watch each of these groups
LISTED = "grouped"  # the customer that is listed
NOTIFICATIONS = 5_000
ALERTS = 1_000
POISON = "66642"  # the quantity of an event that the database refuses
TIMEOUT = 60.0  # seconds of a call

_Metadata = tuple[tuple[str, str], ...]


async def make_groups(server: str, metadata: _Metadata) -> str:
    """Creates a customer with many groups, and alerts that watch all of them; returns the id of one of these."""
    async with channel(server) as over:
        stub, alert_id = AlertServiceStub(over), ""
        for number in range(GROUPED_ALERTS):
            alert = alert_pb2.Alert(
                display_name=f"each model {number}",
                scope=scope_pb2.AlertScope(customer=scope_pb2.CustomerScope(customer_id=LISTED)),
                usage_threshold_reached=condition_pb2.UsageThresholdReachedCondition(
                    metric_id=load.METRIC, group_values=[filter_pb2.GroupSelector(key="model")]
                ),
                thresholds=[threshold_pb2.Threshold(value=str(1 + number))],
            )
            request = alert_service_pb2.CreateAlertRequest(alert=alert)
            alert_id = (await stub.CreateAlert(request, metadata=metadata, timeout=TIMEOUT)).alert.alert_id
        for start in range(0, GROUPS, 700):
            events = []
            for number in range(start, min(GROUPS, start + 700)):
                event = usage_pb2.UsageEvent(
                    event_id=f"group-{number}", customer_id=LISTED, metric_id=load.METRIC, quantity="12"
                )
                event.properties["model"] = f"model-{number}"
                event.event_time.FromDatetime(load.now())
                events.append(event)
            await _send(stub, metadata, events)
    return alert_id


async def create_alerts(stub: AlertServiceStub, metadata: _Metadata, number: int) -> list[str]:
    """Creates alerts of one customer each, out of reach, and returns their ids."""
    requests = [
        alert_service_pb2.CreateAlertRequest(
            alert=alert_pb2.Alert(
                display_name="flood",
                scope=scope_pb2.AlertScope(customer=scope_pb2.CustomerScope(customer_id=f"edited-{index}")),
                usage_threshold_reached=condition_pb2.UsageThresholdReachedCondition(metric_id=load.METRIC),
                thresholds=[threshold_pb2.Threshold(value=str(load.OUT_OF_REACH))],
            )
        )
        for index in range(number)
    ]
    batch = alert_service_pb2.BatchCreateAlertsRequest(requests=requests)
    created = await stub.BatchCreateAlerts(batch, metadata=metadata, timeout=TIMEOUT)
    return [alert.alert_id for alert in created.alerts]


async def create_crossing_alert(server: str, metadata: _Metadata) -> None:
    """Creates an alert that each unit of the crossing metric makes notify."""
    async with channel(server) as over:
        request = alert_service_pb2.CreateAlertRequest(alert=load.crossing_alert())
        await AlertServiceStub(over).CreateAlert(request, metadata=metadata, timeout=TIMEOUT)


async def make_lists(postgresql: PostgreSQL, stack: Stack, metadata: _Metadata) -> None:
    """Creates alerts, notifications, and deliveries of them to an endpoint that does not answer."""
    async with channel(stack.server) as over, contextlib.AsyncExitStack() as exits:
        stub, webhooks = AlertServiceStub(over), WebhookServiceStub(over)
        await create_alerts(stub, metadata, ALERTS)
        endpoint = endpoint_pb2.Endpoint(url="http://127.0.0.1:1025/")
        created = await webhooks.CreateEndpoint(
            webhook_service_pb2.CreateEndpointRequest(endpoint=endpoint), metadata=metadata, timeout=TIMEOUT
        )
        time = load.now()
        for start in range(0, NOTIFICATIONS, 500):
            events = [
                UsageEvent(
                    f"n{start + index}",
                    load.customer(index),
                    time,
                    load.CROSSING_METRIC,
                    Decimal(1),
                    None,
                    None,
                    None,
                    {},
                )
                for index in range(500)
            ]
            await _send(stub, metadata, [load.message(event) for event in events])
        await postgresql.notifier(exits, stack.url, {})
        async with asyncio.timeout(TIMEOUT):
            request = webhook_service_pb2.ListDeliveriesRequest(page_size=1_000)
            while True:
                page = await webhooks.ListDeliveries(request, metadata=metadata)
                if page.next_page_token:
                    break
                await asyncio.sleep(0.2)
        delete = webhook_service_pb2.DeleteEndpointRequest(endpoint_id=created.endpoint.endpoint_id)
        await webhooks.DeleteEndpoint(delete, metadata=metadata, timeout=TIMEOUT)


async def refuse_poison(url: str) -> None:
    """Lets the database refuse events with the quantity POISON."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(
            "CREATE FUNCTION refuse_poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'poison'; END $$"
        )
        await connection.execute(
            f"CREATE TRIGGER refuse_poison BEFORE INSERT ON event FOR EACH ROW WHEN (new.quantity = {POISON})"
            " EXECUTE FUNCTION refuse_poison()".encode()
        )


async def _send(stub: AlertServiceStub, metadata: _Metadata, events: list[usage_pb2.UsageEvent]) -> None:
    request = alert_service_pb2.EvaluateUsageBatchRequest(batch=usage_pb2.UsageBatch(events=events))
    await stub.EvaluateUsageBatch(request, metadata=metadata, timeout=TIMEOUT)
