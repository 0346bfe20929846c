"""A put reads what belongs to its customer only, because usage waits for it: the plans of its statements show it."""

import psycopg

from generated.tidemark.v1 import alert_service_pb2, customer_pb2
from tests.support.postgres.only_one_server import quiet_puts
from tests.support.postgres.plans import recorded
from tests.support.usage.caller import DEADLINE, Caller, on_customer, usage_alert
from tests.support.usage.held_evaluations import NOTED, evaluations_held
from tests.support.usage.percentages import percent, put_customer, put_limit

OTHERS = 500  # customers with an alert each; some have a limit and a plan


@quiet_puts
async def test_put_reads_no_rows_of_other_customers(caller: Caller) -> None:
    await caller.create(usage_alert("1000", thresholds=percent("80")))
    names = [f"c{number:03}" for number in range(OTHERS)]
    requests = [
        alert_service_pb2.CreateAlertRequest(alert=usage_alert("100", scope=on_customer(name))) for name in names
    ]
    batch = alert_service_pb2.BatchCreateAlertsRequest(requests=requests)
    await caller.alerts.BatchCreateAlerts(batch, metadata=caller.metadata, timeout=DEADLINE)
    await caller.send(*(caller.event(f"e {name}", "5", name) for name in ("acme", *names)))
    for name in names[:50]:
        await caller.put_customer(customer_pb2.Customer(customer_id=name, plan_id="silver"))
        await put_limit(caller, "500", customer=name)
    async with await psycopg.AsyncConnection.connect(caller.database_url) as connection:
        await connection.execute("ANALYZE")
    with recorded() as statements, evaluations_held():
        await put_limit(caller, "500")
        await put_customer(caller, "acme", "gold")
    assert await caller.rows(NOTED) == []
    costs = statements.costs(caller.database_url)
    under_lock = [one for one in costs if "quiet_gauge" in one.statement]
    assert len(under_lock) == 2
    # Without the lock, PostgreSQL may read a table of so few customers as a whole.
    assert sum(one.by_table["customer"] for one in under_lock) < 20
    for table in ("alert", "alert_state", "gauge"):
        assert sum(one.by_table[table] for one in costs) < 20
