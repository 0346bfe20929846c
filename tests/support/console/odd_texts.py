"""A text that would be a script if a page did not escape it, in every field that takes it."""

import grpc
from google.protobuf import text_format

from generated.tidemark.v1 import account_service_pb2 as accounts
from generated.tidemark.v1 import alert_pb2, customer_pb2
from generated.tidemark.v1 import alert_service_pb2 as alerts
from tests.support.console.scenario import Caller
from tests.support.console.stage import Stage

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}"


async def admin_calls(console: Stage) -> Caller:
    """Calls of the API as an admin."""
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{console.server_port}")
    return Caller(channel, (("authorization", f"Bearer {console.keys['admin']}"),))


async def evil_texts(console: Stage) -> str:
    """Stores the text in every field that takes it; returns the id of the alert."""
    calls = await admin_calls(console)
    customer = customer_pb2.Customer(customer_id=EVIL, display_name=EVIL, external_id=EVIL, aliases=[f"{EVIL}2"])
    customer.custom_fields["x"] = EVIL
    await calls("PutCustomer", accounts.PutCustomerRequest(customer=customer))
    alert = text_format.Parse(
        "scope { all_customers {} } usage_threshold_reached { group_values {} } thresholds { value: '1' }",
        alert_pb2.Alert(),
    )
    alert.display_name, alert.uniqueness_key, alert.thresholds[0].code = EVIL, EVIL, EVIL
    alert.usage_threshold_reached.metric_id = EVIL
    alert.usage_threshold_reached.group_values[0].key = EVIL
    alert.labels["x"] = EVIL
    created = await calls("CreateAlert", alerts.CreateAlertRequest(alert=alert))
    event = {"event_id": EVIL, "customer_id": EVIL, "metric_id": EVIL, "quantity": "5", "properties": {EVIL: EVIL}}
    batch = {"events": [{**event, "event_time": console.clock.now()}]}
    request = alerts.EvaluateUsageBatchRequest(batch=batch)  # type: ignore[arg-type]
    answer = await calls("EvaluateUsageBatch", request)
    assert answer.outcome.accepted == 1, answer
    return str(created.alert.alert_id)
