"""The erasure of a customer: everything of it is deleted, its ledger gets a pseudonym, and others keep everything."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

import grpc
import psycopg
import pytest

from engine.erasures import Erasures
from generated.tidemark.v1 import (
    access_pb2,
    alert_service_pb2,
    condition_pb2,
    customer_pb2,
    delivery_pb2,
    erasure_job_pb2,
    invoice_pb2,
    limit_pb2,
    metric_pb2,
    scope_pb2,
    subscription_pb2,
    webhook_service_pb2,
    webhook_service_pb2_grpc,
)
from generated.tidemark.v1 import (
    account_service_pb2 as messages,
)
from runtime.clock import ManualClock
from server.calls.validate_only import transaction_of
from server.calls.validation import to_timestamp
from store.deliveries import redelivery_jobs, redelivery_steps
from store.deliveries.redelivery_jobs import JobKind, Selection
from store.erasures import jobs
from store.notifications import evaluation_failures
from store.postgres.database import Database
from tests.support.balances.holder import GRANT, SEAT, Holder, alert
from tests.support.notifier.house import House
from tests.support.server.running import reason_of
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import (
    Caller,
    Refusal,
    beside,
    on_customer,
    on_subscription,
    refusals,
    until,
    usage_alert,
)
from tests.support.usage.organizations import organization
from tests.support.usage.voiding import void
from tests.support.webhooks.attempts import claim, fan_out, record
from webhooks.deliveries import DeliveryStatus
from webhooks.operator_events import EvaluationFailure

pytestmark = shares_server


PERSON, NEIGHBOUR = "person-4711", "neighbour-0815"
URL = "http://127.0.0.1:9/hook"
DONE = erasure_job_pb2.ERASURE_STATE_DONE
BALANCE = condition_pb2.LowRemainingCommitBalanceReachedCondition()
# Answers to requests with a request_id expire by themselves. The job has the customer's id while it runs.
NOT_ERASED = {"request"}


async def erase(caller: Caller, customer: str = PERSON, **fields: Any) -> messages.DeleteCustomerResponse:
    """Begins an erasure."""
    request = messages.DeleteCustomerRequest(customer_id=customer, **fields)
    return await caller.accounts.DeleteCustomer(request, metadata=caller.metadata)


async def job_of(caller: Caller, job_id: str) -> erasure_job_pb2.ErasureJob:
    """The job as it is now."""
    request = messages.GetErasureJobRequest(job_id=job_id)
    return (await caller.accounts.GetErasureJob(request, metadata=caller.metadata)).job


async def erased(caller: Caller, customer: str = PERSON) -> erasure_job_pb2.ErasureJob:
    """Erases a customer, and waits for the end."""
    return await finished(caller, (await erase(caller, customer)).job.job_id)


async def finished(caller: Caller, job_id: str) -> erasure_job_pb2.ErasureJob:
    """The job, once it is done."""

    async def done() -> bool:
        return (await job_of(caller, job_id)).state == DONE

    await until(done)
    return await job_of(caller, job_id)


async def live(
    caller: Caller, database: Database, clock: ManualClock, customer: str, *, endpoint: bool = True
) -> None:
    """A customer with rows in every table."""
    holder = Holder(caller, customer)
    await caller.put_customer(
        customer_pb2.Customer(
            customer_id=customer,
            display_name=f"{customer} Inc.",
            external_id=f"crm {customer}",
            aliases=[f"alias of {customer}"],
            plan_id="gold",
        )
    )
    await caller.put_subscription(subscription_pb2.Subscription(customer_id=customer, subscription_id="pro"))
    await caller.put_subscription(subscription_pb2.Subscription(customer_id=customer, subscription_id="unused"))
    deletion = messages.DeleteSubscriptionRequest(customer_id=customer, subscription_id="unused")
    await caller.accounts.DeleteSubscription(deletion, metadata=caller.metadata)
    await holder.put(
        "c1",
        "100",
        display_name=f"commit of {customer}",
        custom_fields={"owner": customer},
        contract_id=f"contract of {customer}",
    )
    await holder.put("s1", "10", kind=SEAT, seat=("user", f"seat of {customer}"))
    await holder.put("g1", "5", kind=GRANT, currency="EUR")
    await holder.adjust("c1", "20", "adjusted")
    decrement = messages.DecrementBalancesRequest(
        customer_id=customer, adjustment_id="taken", amount="1", custom_fields={"by": customer}
    )
    decrement.spend.currency = "USD"
    await caller.accounts.DecrementBalances(decrement, metadata=caller.metadata)
    limit = limit_pb2.Limit(
        limit_id=f"limit {customer}",
        customer=scope_pb2.CustomerScope(customer_id=customer),
        spend=access_pb2.SpendAccess(currency="USD"),
        amount="1000",
    )
    await caller.accounts.PutLimit(messages.PutLimitRequest(limit=limit), metadata=caller.metadata)
    invoice = invoice_pb2.Invoice(
        invoice_id="i1",
        customer_id=customer,
        display_name=f"invoice of {customer}",
        status=invoice_pb2.INVOICE_STATUS_PAID,
        currency="USD",
        total="12.50",
        period_end_time=to_timestamp(clock.now()),
        custom_fields={"owner": customer},
    )
    await caller.accounts.PutInvoice(messages.PutInvoiceRequest(invoice=invoice), metadata=caller.metadata)
    own = await caller.create(usage_alert("3", scope=on_customer(customer)))
    await caller.create(usage_alert("4", metric="others", scope=on_customer(customer)))
    exceeded = alert(
        "5", scope=on_subscription("pro", customer), usage_exceeded=condition_pb2.UsageExceededCondition()
    )
    exceeded.usage_exceeded.metric_id = "calls"
    await caller.create(exceeded)
    await caller.send(
        *(caller.event(f"e{n}", "2", customer, cost="1", subscription="pro", user=f"u{n}") for n in range(20)),
        *(caller.event(f"old{n}", "1", customer, at=clock.now() - timedelta(days=20)) for n in range(3)),
        caller.event("names", "1", customer, metric="names", name=f"name of {customer}"),
    )
    await void(caller, "old0", customer=customer)
    disable = alert_service_pb2.DisableAlertRequest(alert_id=own.alert_id, customer_id=customer)
    await caller.alerts.DisableAlert(disable, metadata=caller.metadata)
    if endpoint:
        [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
        house = House(database, clock, int(organization_id))
        await house.endpoint(URL)
        await fan_out(house)
        await record(house, await claim(house), DeliveryStatus.DELIVERED)
    await caller.send(caller.event("later", "0.5", customer, cost="1"))


async def wide_alerts(caller: Caller) -> None:
    """Alerts that cover every customer."""
    await caller.put_metric("names", metric_pb2.AGGREGATION_UNIQUE_COUNT, "name")
    await caller.create(usage_alert("3", "10"))
    await caller.create(usage_alert("1", metric="names"))
    await caller.create(usage_alert("1", groups=[("user", None)]))
    await caller.create(alert("90", low_remaining_commit_balance_reached=BALANCE))


def _unique() -> Any:
    from generated.tidemark.v1 import metric_pb2

    return metric_pb2.AGGREGATION_UNIQUE_COUNT


async def rows_with(caller: Caller, text: str) -> dict[str, int]:
    """How many rows of the organization contain a text in any column, by table."""
    tables = await caller.rows(
        "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'organization_id'"
        " WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
    )
    found = {}
    for [table] in tables:
        query = f'SELECT count(*) FROM "{table}" t WHERE organization_id = %(organization_id)s'
        [[number]] = await caller.rows(query + " AND t::text LIKE %(like)s", like=f"%{text}%")
        if number and table not in NOT_ERASED:
            found[table] = int(number)
    return found


async def ledger(caller: Caller, customer: str) -> dict[str, list[tuple[str, str]]]:
    """Type and amount of each ledger entry, by balance."""
    found: dict[str, list[tuple[str, str]]] = {}
    for one in await Holder(caller, customer).entries():
        found.setdefault(one.balance_id, []).append((str(one.type), one.amount))
    return found


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
    for placed in ("feed_entry", "feed_pending"):  # the service moves rows from one to the other
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


@asynccontextmanager
async def held(caller: Caller) -> AsyncIterator[None]:
    """Holds the person's events, so that an erasure waits at its first step."""
    async with await psycopg.AsyncConnection.connect(caller.database_url) as connection:
        await connection.execute("SELECT FROM event WHERE customer_id = %s FOR UPDATE", (PERSON,))
        yield


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


async def test_usage_beside_an_erasure_is_counted_before_it_or_refused(
    caller: Caller, database: Database, clock: ManualClock
) -> None:
    await wide_alerts(caller)
    await live(caller, database, clock, PERSON, endpoint=False)
    going = True
    refused = 0

    async def send(number: int) -> None:
        nonlocal refused
        sent = 0
        while going:
            answer = await caller.send(*(caller.event(f"b{number}-{sent}-{n}", "1", PERSON) for n in range(5)))
            sent += 1
            assert answer.accepted in (0, 5)
            refused += len(answer.rejected)
            if answer.accepted and (await job_of(caller, job.job_id)).state == DONE:
                return

    job = (await erase(caller, validate_only=True)).job
    assert job.state != DONE
    async with held(caller):
        job = (await erase(caller)).job
        sending = [asyncio.create_task(send(number)) for number in range(3)]

        async def seen() -> bool:
            return refused > 10

        await until(seen)
    await finished(caller, job.job_id)
    await asyncio.gather(*sending)
    going = False
    # What was counted after the end belongs to the new customer, whole.
    [[events]] = await caller.rows(
        "SELECT count(*) FROM event WHERE organization_id = %(organization_id)s AND customer_id = %(id)s", id=PERSON
    )
    answer = await caller.send(caller.event("last", "1", PERSON), gauges=True)
    [counted] = [one.value for one in answer.gauges if one.usage.metric_id == "calls" and not one.group]
    assert Decimal(counted) == events + 1


async def test_erasure_that_is_cut_off_goes_on_on_another_replica(
    caller: Caller, database: Database, clock: ManualClock
) -> None:
    await live(caller, database, clock, PERSON, endpoint=False)
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    replicas = [Erasures(database, clock, rows_at_once=1) for _ in range(2)]
    async with held(caller), database.transaction() as connection:
        job = await jobs.begin(connection, int(organization_id), PERSON, clock.now())
    for attempt in range(200):
        working = [asyncio.create_task(replica.work_once()) for replica in replicas]
        await asyncio.sleep(0)
        if attempt % 3 == 0:
            working[0].cancel()
        await asyncio.gather(*working, return_exceptions=True)
        if (await job_of(caller, job.job_id)).state == DONE:
            break
    await finished(caller, job.job_id)
    assert await rows_with(caller, PERSON) == {}


async def test_erasure_is_not_delayed_by_many_erasures_of_another_organization(
    caller: Caller, database: Database, clock: ManualClock
) -> None:
    name, key = await organization(caller.database_url, clock)
    theirs = Caller(caller.server, clock, caller.database_url, name, key)
    many = [f"customer {number}" for number in range(5)]
    await theirs.send(*(theirs.event("e1", "1", customer) for customer in many))
    await caller.send(caller.event("e1", "1", PERSON))
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    [[other_id]] = await theirs.rows("SELECT %(organization_id)s")
    async with transaction_of(database, validate_only=True) as connection:
        for customer in many:
            await jobs.begin(connection, int(other_id), customer, clock.now())
        own = await jobs.begin(connection, int(organization_id), PERSON, clock.now() + timedelta(seconds=1))
        assert own.job_id in [job.job_id for job in await jobs.running(connection, 2)]


async def test_delivery_that_is_being_attempted_ends_before_it_is_deleted(
    caller: Caller, database: Database, clock: ManualClock
) -> None:
    await wide_alerts(caller)
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    house = House(database, clock, int(organization_id))
    await house.endpoint(URL)
    await caller.send(caller.event("e1", "5", PERSON))
    await fan_out(house)
    claims = await claim(house)
    assert claims
    job_id = (await erase(caller)).job.job_id

    async def waits() -> bool:
        [[left]] = await caller.rows(
            "SELECT count(*) FROM delivery WHERE organization_id = %(organization_id)s AND lease_token IS NULL"
        )
        return int(left) == 0

    await until(waits)
    assert (await job_of(caller, job_id)).state != DONE
    await record(house, claims, DeliveryStatus.DELIVERED)
    await finished(caller, job_id)
    [[in_flight]] = await caller.rows("SELECT in_flight FROM endpoint WHERE organization_id = %(organization_id)s")
    assert in_flight == 0
    assert await rows_with(caller, PERSON) == {}


async def test_recovery_beside_an_erasure_leaves_no_delivery_of_the_customer(
    caller: Caller, database: Database, clock: ManualClock
) -> None:
    await caller.create(usage_alert("3"))
    await caller.send(caller.event("e1", "5", PERSON))
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    house = House(database, clock, int(organization_id))
    await fan_out(house)  # to no endpoint
    endpoint = (await house.endpoint(URL)).endpoint
    span = Selection(clock.now() - timedelta(days=1), clock.now() + timedelta(days=1))
    replica = Erasures(database, clock)

    async def waits() -> bool:
        return not await replica.work_once()

    async with database.transaction() as connection:
        recovery = await redelivery_jobs.create(
            connection, house.organization_id, endpoint.endpoint_id, JobKind.RECOVERY, span, now=clock.now()
        )
        await redelivery_steps.step(connection, house.organization_id, recovery.job_id, clock.now())
        job_id = (await erase(caller)).job.job_id
        for _ in range(3):
            await until(waits)
    await finished(caller, job_id)
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


async def test_stream_of_notifications_goes_on_over_erased_ones(
    caller: Caller, database: Database, clock: ManualClock
) -> None:
    await caller.create(usage_alert("3"))
    request = alert_service_pb2.WatchNotificationsRequest()
    watch = caller.alerts.WatchNotifications(request, metadata=caller.metadata, timeout=120)
    start = await _token(watch)
    for number, customer in enumerate((NEIGHBOUR, PERSON, "third", PERSON + "b")):
        await caller.send(caller.event(f"e{number}", "5", customer))
        assert (await _next(watch)).customer_id == customer
    await erased(caller)
    await erased(caller, PERSON + "b")
    again = alert_service_pb2.WatchNotificationsRequest(resume_token=start)

    async def forgotten() -> bool:
        # The server has read them for its subscribers before, and forgets them with its next poll.
        stream = caller.alerts.WatchNotifications(again, metadata=caller.metadata, timeout=120)
        seen = [(await _next(stream)).customer_id for _ in range(2)]
        stream.cancel()
        return seen == [NEIGHBOUR, "third"]

    await until(forgotten)
    async with beside(caller) as replica:
        other = replica.alerts.WatchNotifications(
            alert_service_pb2.WatchNotificationsRequest(resume_token=start), metadata=caller.metadata, timeout=120
        )
        assert [(await _next(other)).customer_id for _ in range(2)] == [NEIGHBOUR, "third"]
        await caller.send(caller.event("last", "5", "fourth"))
        assert (await _next(other)).customer_id == "fourth"
    assert (await _next(watch)).customer_id == "fourth"
    watch.cancel()


async def _token(watch: Any) -> str:
    return str((await watch.read()).resume_token)


async def _next(watch: Any) -> Any:
    while True:
        answer = await watch.read()
        if answer.HasField("notification"):
            return answer.notification


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
