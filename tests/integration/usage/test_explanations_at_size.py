"""What an explanation reads where there is very much of everything: the plans of its statements show the rows."""

import psycopg
import pytest

from generated.tidemark.v1 import alert_service_pb2
from store.usage import event_samples
from tests.support.postgres.only_one_server import reads_plans
from tests.support.postgres.plans import recorded
from tests.support.server.sharing import own_database
from tests.support.usage.caller import Caller, usage_alert

pytestmark = own_database

NUMBER = 3_000  # of each
EXAMINED = 100  # events of a sample, here
MOST_ROWS = 1_500  # of all statements together; the latest notifications of the customer are 1,000 of them

# Other alerts on the gauge, other notifications of the customer and its deliveries, other gauges, voided events,
# subscriptions, and the outbox of a notifier that does not run.
FILL = (
    "INSERT INTO alert_state (organization_id, customer_id, gauge_id, alert_id, alert_version, reached, sequence)"
    " SELECT g.organization_id, 'acme', g.gauge_id, 'a' || n, 1, '{{}}', 0 FROM gauge g, generate_series(1, {n}) n",
    "INSERT INTO notification (organization_id, customer_id, notification_id, alert_id, sequence, event_type,"
    " condition_type, create_time, body) SELECT {o}, 'acme', 'n' || n, 'other', 0, 'alert.reached',"
    " 'usage_threshold_reached', now(), '{{}}' FROM generate_series(1, {n}) n",
    "INSERT INTO feed_entry (organization_id, place, notification_id, customer_id, alert_id, event_type,"
    " condition_type, create_time, high_time) SELECT {o}, 1000 + n, 'n' || n, 'acme', 'other', 'alert.reached',"
    " 'usage_threshold_reached', now(), now() FROM generate_series(1, {n}) n",
    "INSERT INTO outbox (organization_id, customer_id, notification_id, event_type, condition_type, create_time)"
    " SELECT {o}, 'acme', 'n' || n, 'alert.reached', 'usage_threshold_reached', now() FROM generate_series(1, {n}) n",
    "INSERT INTO delivery (organization_id, delivery_id, endpoint_id, notification_id, customer_id, event_type,"
    " status, create_time, next_attempt_time) SELECT {o}, 'd' || n, 'e', 'n' || n, 'acme', 'alert.reached',"
    " 'PENDING', now(), now() FROM generate_series(1, {n}) n",
    "INSERT INTO gauge (organization_id, customer_id, gauge_id, value, rules_epoch, update_time, measure,"
    " group_values, period_start, period_end) SELECT {o}, 'acme', gen_random_uuid(), 1, 1, now(), 'usage/other',"
    " jsonb_build_array(jsonb_build_array('region', n::text)), now(), now() FROM generate_series(1, {n}) n",
    "INSERT INTO subscription (organization_id, customer_id, subscription_id, create_time, update_time,"
    " changed_epoch) SELECT {o}, 'acme', 's' || n, now(), now(), 1 FROM generate_series(1, {n}) n",
    "INSERT INTO voided_event (organization_id, customer_id, event_id, event_time, ingest_time, quantity, void_time)"
    " SELECT {o}, 'acme', 'v' || n, now(), now(), 1, now() FROM generate_series(1, {n}) n",
)


async def execute(caller: Caller, *statements: str) -> None:
    """Executes statements on the database of the caller."""
    async with await psycopg.AsyncConnection.connect(caller.database_url, autocommit=True) as connection:
        for statement in statements:
            await connection.execute(statement.encode())


@reads_plans
async def test_an_explanation_reads_its_page_and_a_sample_of_the_events(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_samples, "MAX_EXAMINED", EXAMINED)
    alert = await caller.create(usage_alert("10"))
    for start in range(0, NUMBER, 1_000):
        await caller.send(*(caller.event(f"e{start + number}", "1") for number in range(1_000)))
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s::bigint")
    await execute(caller, *(statement.format(n=NUMBER, o=organization_id) for statement in FILL))
    request = alert_service_pb2.ExplainCustomerAlertRequest(alert_id=alert.alert_id, customer_id="acme")
    # The first one lets the notifications get their positions.
    await caller.alerts.ExplainCustomerAlert(request, metadata=caller.metadata)
    for statistics in ("SELECT", "ANALYZE"):
        await execute(caller, statistics)
        with recorded() as statements:
            answer = await caller.alerts.ExplainCustomerAlert(request, metadata=caller.metadata)
        explanation = answer.explanation
        assert (explanation.gauges[0].gauge.value, len(explanation.notifications)) == (str(NUMBER), 1)
        assert (explanation.counted.examined_count, explanation.counted.is_complete) == (EXAMINED, False)
        costs = statements.costs(caller.database_url, "SET LOCAL enable_seqscan = off")
        assert sum(one.rows for one in costs) < MOST_ROWS, [(one.rows, one.statement[:200]) for one in costs]
