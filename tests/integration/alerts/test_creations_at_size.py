"""The creation of an alert reads alerts of its customer only, because usage waits for it: its plan shows the rows."""

from generated.tidemark.v1 import alert_pb2, alert_service_pb2
from tests.support.postgres.only_one_server import quiet_puts
from tests.support.postgres.plans import recorded
from tests.support.usage.caller import DEADLINE, Caller, on_customer, usage_alert

OTHERS = 1_000  # alerts of other customers, of which PostgreSQL has no statistics yet


@quiet_puts
async def test_creation_for_a_customer_with_usage_reads_no_alerts_of_others(caller: Caller) -> None:
    await caller.create(usage_alert("1000"))
    await caller.send(caller.event("e1", "5"))
    others = [usage_alert("10", scope=on_customer(f"c{number:04}")) for number in range(OTHERS)]
    request = alert_service_pb2.BatchCreateAlertsRequest(
        requests=[alert_service_pb2.CreateAlertRequest(alert=one) for one in others]
    )
    await caller.alerts.BatchCreateAlerts(request, metadata=caller.metadata, timeout=DEADLINE)
    with recorded() as statements:
        created = await caller.create_only(usage_alert("10", scope=on_customer("acme")))
    assert created.evaluation_status == alert_pb2.EVALUATION_STATUS_DONE
    [cost] = [one for one in statements.costs(caller.database_url) if "INSERT INTO alert (" in one.statement]
    assert cost.rows < 50
