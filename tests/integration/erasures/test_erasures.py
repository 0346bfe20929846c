"""The erasure of a customer: everything of it is deleted, its ledger gets a pseudonym, and others keep everything."""

from datetime import timedelta
from decimal import Decimal

import grpc
import pytest

from generated.tidemark.v1 import (
    account_service_pb2 as messages,
)
from generated.tidemark.v1 import (
    alert_service_pb2,
    customer_pb2,
    delivery_pb2,
    subscription_pb2,
    webhook_service_pb2,
    webhook_service_pb2_grpc,
)
from runtime.clock import ManualClock
from server.calls.validation import to_timestamp
from store.erasures.jobs import ErasureJob, ErasureState
from store.erasures.notifications import delete_notifications
from store.notifications import evaluation_failures
from store.postgres.database import Database
from tests.support.balances.holder import Holder
from tests.support.notifications.watching import notify, pool
from tests.support.notifier.house import House
from tests.support.server.running import metadata_of, reason_of
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import (
    Caller,
    Refusal,
    beside,
    on_customer,
    refusals,
    usage_alert,
)
from tests.support.usage.erasing import (
    NEIGHBOUR,
    PERSON,
    URL,
    erase,
    erased,
    finished,
    held,
    job_of,
    ledger,
    live,
    rows_with,
    wide_alerts,
)
from tests.support.usage.organizations import organization
from tests.support.webhooks.attempts import fan_out
from webhooks.operator_events import EvaluationFailure

pytestmark = shares_server


async def test_everything_of_the_customer_is_gone_and_its_ledger_has_a_pseudonym(
    caller: Caller, database: Database, clock: ManualClock
) -> None:
    await wide_alerts(caller)
    await live(caller, database, clock, PERSON)
    await live(caller, database, clock, NEIGHBOUR, endpoint=False)
    full = await rows_with(caller, PERSON)
    assert {"event", "gauge", "alert_state", "notification", "delivery", "feed_entry", "feed_pending"} & set(full)
    assert {"customer", "subscription", "alert", "alert_change", "alert_exclusion", "group_count"} <= set(full)
    assert {"balance", "balance_segment", "balance_entry", "invoice", "usage_limit", "unique_value"} <= set(full)
    assert "voided_event" in full
    booked, kept = await ledger(caller, PERSON), await rows_with(caller, NEIGHBOUR)
    job = await erased(caller)
    assert (job.customer_id, job.completed_steps) == ("", job.total_steps)
    assert job.deleted_count > 50
    assert await rows_with(caller, PERSON) == {}
    assert await ledger(caller, job.pseudonym) == booked
    after = await rows_with(caller, NEIGHBOUR)
    for placed in (
        "feed_entry",
        "feed_pending",
        "audit_entry",
        "audit_pending",
    ):  # the service moves rows from one to the other
        kept.pop(placed, None)
        after.pop(placed, None)
    assert after == kept
    balances = messages.ListBalancesRequest(customer_id=job.pseudonym)
    shown = (await caller.accounts.ListBalances(balances, metadata=caller.metadata)).balances
    assert {one.balance_id: Decimal(one.remaining) for one in shown} == {"c1": 98, "s1": 10, "g1": 5}
    invoices = messages.ListInvoicesRequest(customer_id=job.pseudonym)
    [invoice] = (await caller.accounts.ListInvoices(invoices, metadata=caller.metadata)).invoices
    assert (invoice.total, dict(invoice.custom_fields)) == ("12.5", {})


async def test_erased_id_is_that_of_a_new_customer_on_every_replica(
    caller: Caller, database: Database, clock: ManualClock
) -> None:
    await wide_alerts(caller)
    async with beside(caller) as replica:
        await live(replica, database, clock, PERSON, endpoint=False)
        await replica.send(caller.event("seen", "1", PERSON))
        await erased(caller)
        # The replica has had nothing to do since, and still has the customer and its alerts in memory.
        answer = await replica.send(*(caller.event(f"e{n}", "1", PERSON) for n in range(4)), gauges=True)
    assert (answer.accepted, answer.duplicates) == (4, 0)
    assert {Decimal(one.value) for one in answer.gauges if one.usage.metric_id == "calls" and not one.group} == {4}
    assert [(one.level, one.value) for one in answer.transitions] == [("3", "3")]
    stored = await caller.accounts.GetCustomer(
        messages.GetCustomerRequest(customer_id=PERSON), metadata=caller.metadata
    )
    assert (stored.customer.display_name, stored.customer.plan_id) == ("", "")


async def test_customer_that_is_being_erased_takes_neither_usage_nor_facts(
    caller: Caller, database: Database, clock: ManualClock
) -> None:
    await live(caller, database, clock, PERSON, endpoint=False)
    async with held(caller):
        job = (await erase(caller)).job
        assert (await erase(caller)).job.job_id == job.job_id
        answer = await caller.send(
            caller.event("e1", "2", PERSON), caller.event("new", "1", PERSON), caller.event("n1", "1", NEIGHBOUR)
        )
        assert answer.accepted == 1
        assert refusals(answer) == [Refusal(at, "FAILED_PRECONDITION", "CUSTOMER_BEING_ERASED") for at in (0, 1)]
        holder = Holder(caller, PERSON)
        for change in (holder.put("c9", "1"), holder.adjust("c1", "1"), holder.plan("silver")):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await change
            assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
            assert "being erased" in str(refused.value.details())
        assert (await job_of(caller, job.job_id)).customer_id == PERSON
    await finished(caller, job.job_id)
    assert (await caller.send(caller.event("new", "1", PERSON))).accepted == 1


async def test_customer_that_is_being_erased_takes_neither_alerts_nor_deletions_nor_redeliveries(
    caller: Caller, database: Database, clock: ManualClock
) -> None:
    wide = await caller.create(usage_alert("7"))
    off = await caller.create(usage_alert("8"))
    disabled = alert_service_pb2.DisableAlertRequest(alert_id=off.alert_id, customer_id=PERSON)
    await caller.send(caller.event("e1", "1", PERSON))
    await caller.put_subscription(subscription_pb2.Subscription(customer_id=PERSON, subscription_id="pro"))
    await caller.alerts.DisableAlert(disabled, metadata=caller.metadata)
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    endpoint = await House(database, clock, int(organization_id)).endpoint(URL)
    again = webhook_service_pb2.RedeliverDeliveriesRequest(
        endpoint_id=endpoint.endpoint.endpoint_id,
        statuses=[delivery_pb2.DELIVERY_STATUS_DELIVERED],
        customer_id=PERSON,
        start_time=to_timestamp(clock.now() - timedelta(days=1)),
    )
    hooks = webhook_service_pb2_grpc.WebhookServiceStub(caller.server.channel)
    on_person = usage_alert("9", scope=on_customer(PERSON))
    batch = alert_service_pb2.BatchCreateAlertsRequest(
        requests=[alert_service_pb2.CreateAlertRequest(alert=one) for one in (usage_alert("1"), on_person)]
    )
    async with held(caller):
        job = (await erase(caller)).job
        changes = (
            caller.create_only(on_person),
            caller.alerts.BatchCreateAlerts(batch, metadata=caller.metadata),
            caller.alerts.DisableAlert(
                alert_service_pb2.DisableAlertRequest(alert_id=wide.alert_id, customer_id=PERSON),
                metadata=caller.metadata,
            ),
            caller.alerts.EnableAlert(
                alert_service_pb2.EnableAlertRequest(alert_id=off.alert_id, customer_id=PERSON),
                metadata=caller.metadata,
            ),
            caller.accounts.DeleteSubscription(
                messages.DeleteSubscriptionRequest(customer_id=PERSON, subscription_id="pro"),
                metadata=caller.metadata,
            ),
            hooks.RedeliverDeliveries(again, metadata=caller.metadata),
        )
        for change in changes:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await change
            assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
            assert reason_of(refused.value).endswith("CUSTOMER_BEING_ERASED")
    await finished(caller, job.job_id)
    assert await rows_with(caller, PERSON) == {}


async def test_the_customers_below_keep_everything_but_their_parent(caller: Caller) -> None:
    async def put(customer_id: str, parent: str) -> None:
        await caller.put_customer(customer_pb2.Customer(customer_id=customer_id, parent_customer_id=parent))

    async def below(parent: str) -> list[str]:
        request = messages.ListCustomersRequest(parent_customer_id=parent)
        answer = await caller.accounts.ListCustomers(request, metadata=caller.metadata)
        return [one.customer_id for one in answer.customers]

    await put(PERSON, "above")
    for number in range(5):
        await put(f"c{number}", PERSON)
    await put(NEIGHBOUR, "above")
    await put("grandchild", "c1")
    await caller.send(*(caller.event(f"e{number}", "2", f"c{number}") for number in range(5)))
    await erased(caller)
    assert await rows_with(caller, PERSON) == {}
    assert (await below(PERSON), await below("above"), await below("c1")) == ([], [NEIGHBOUR], ["grandchild"])
    rows = await caller.rows(
        "SELECT count(*) FROM event WHERE organization_id = %(organization_id)s AND customer_id LIKE 'c_'"
    )
    assert rows == [(5,)]
    await put("c0", PERSON)  # a new customer of that id
    assert await below(PERSON) == ["c0"]


async def test_a_customer_that_is_being_erased_becomes_no_parent(caller: Caller) -> None:
    await caller.send(caller.event("e1", "1", PERSON))
    await caller.put_customer(customer_pb2.Customer(customer_id="c0", parent_customer_id=PERSON))
    async with held(caller):
        job = (await erase(caller)).job
        for customer_id, plan_id in (("new", ""), (NEIGHBOUR, ""), ("c0", "gold")):
            customer = customer_pb2.Customer(customer_id=customer_id, parent_customer_id=PERSON, plan_id=plan_id)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await caller.put_customer(customer)
            assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
            assert reason_of(refused.value).endswith("CUSTOMER_BEING_ERASED")
            assert metadata_of(refused.value) == {"customer_id": PERSON}
        # Usage of those below goes on.
        assert (await caller.send(caller.event("e2", "1", "c0"))).accepted == 1
    await finished(caller, job.job_id)
    assert await rows_with(caller, PERSON) == {}


async def test_operator_events_about_the_customer_are_erased_with_their_deliveries(
    caller: Caller, database: Database, clock: ManualClock
) -> None:
    await caller.send(caller.event("e1", "1", PERSON), caller.event("e1", "1", NEIGHBOUR))
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    house = House(database, clock, int(organization_id))
    await house.endpoint(URL, ("evaluation.failed",))

    async def fail(alert_id: str, customer: str) -> None:
        async with database.transaction() as connection:
            failure = EvaluationFailure(alert_id, customer, "e1")
            await evaluation_failures.add(connection, house.organization_id, [failure], clock.now())

    await fail("alt_waits", PERSON)
    await fail("alt_theirs", NEIGHBOUR)
    await fan_out(house)
    await fail("alt_in_outbox", PERSON)
    await erased(caller)
    assert await rows_with(caller, PERSON) == {}
    for table in ("delivery", "operator_event"):
        [[left]] = await caller.rows(f"SELECT count(*) FROM {table} WHERE organization_id = %(organization_id)s")
        assert left == 1  # the neighbour's
    [[left]] = await caller.rows("SELECT count(*) FROM outbox WHERE organization_id = %(organization_id)s")
    assert left == 0


async def test_erasure_is_only_of_the_callers_own_customer(
    caller: Caller, database: Database, clock: ManualClock
) -> None:
    name, key = await organization(caller.database_url, clock)
    theirs = Caller(caller.server, clock, caller.database_url, name, key)
    await theirs.send(theirs.event("e1", "1", PERSON))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await erase(caller)
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    await caller.send(caller.event("e1", "1", PERSON))
    job = await erased(caller)
    assert await theirs.event_count(PERSON) == 1
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await job_of(theirs, job.job_id)
    assert unknown.value.code() == grpc.StatusCode.NOT_FOUND
    listed = await theirs.accounts.ListErasureJobs(messages.ListErasureJobsRequest(), metadata=theirs.metadata)
    assert not listed.jobs


async def test_erasures_are_listed_and_a_repeated_request_begins_none(caller: Caller) -> None:
    await caller.send(caller.event("e1", "1", PERSON), caller.event("e1", "1", NEIGHBOUR))
    await erase(caller, validate_only=True)
    assert (await caller.send(caller.event("e2", "1", PERSON))).accepted == 1
    first = await erase(caller, request_id="r")
    await finished(caller, first.job.job_id)
    await caller.send(caller.event("e3", "1", PERSON))
    again = await erase(caller, request_id="r")
    assert (again.replayed, again.job.job_id) == (True, first.job.job_id)
    assert await caller.event_count(PERSON) == 1
    second = await erased(caller, NEIGHBOUR)
    request = messages.ListErasureJobsRequest(page_size=1)
    pages = []
    while True:
        answer = await caller.accounts.ListErasureJobs(request, metadata=caller.metadata)
        pages.append([one.job_id for one in answer.jobs])
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    assert sorted(pages) == sorted([[second.job_id], [first.job.job_id]])


async def test_an_erasure_leaves_no_row_that_the_feed_would_wait_for(caller: Caller, clock: ManualClock) -> None:
    """An evaluation commits after the step that deletes what waits for a position."""
    await notify(caller, (PERSON, 1), (NEIGHBOUR, 1))
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s::bigint")
    job = ErasureJob(
        organization_id, "erj_1", PERSON, "pseudonym", ErasureState.RUNNING, 0, 0, 0, clock.now(), finish_time=None
    )
    async with pool(caller) as connections, connections.transaction() as connection:
        done = await delete_notifications(connection, job, 100)
    assert done.deleted == 2  # the notification, and its row in feed_pending
    waiting = "SELECT customer_id FROM feed_pending WHERE organization_id = %(organization_id)s"
    assert await caller.rows(waiting) == [(NEIGHBOUR,)]
