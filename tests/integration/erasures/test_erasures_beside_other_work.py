"""Erasures while usage, deliveries, streams and other erasures go on."""

import asyncio
import contextlib
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg

from engine.erasures import Erasures
from generated.tidemark.v1 import (
    alert_service_pb2,
)
from runtime.clock import ManualClock
from server.calls.validate_only import transaction_of
from store.deliveries import redelivery_jobs, redelivery_steps
from store.deliveries.redelivery_jobs import JobKind, Selection
from store.erasures import jobs
from store.postgres.database import Database
from tests.support.notifier.house import House
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import (
    Caller,
    beside,
    until,
    usage_alert,
)
from tests.support.usage.erasing import (
    DONE,
    NEIGHBOUR,
    PERSON,
    URL,
    erase,
    erased,
    finished,
    held,
    job_of,
    live,
    rows_with,
    wide_alerts,
)
from tests.support.usage.organizations import organization
from tests.support.webhooks.attempts import claim, fan_out, record
from webhooks.deliveries import DeliveryStatus

pytestmark = shares_server


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
        job, _ = await jobs.begin(connection, int(organization_id), PERSON, clock.now())
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
        own, _ = await jobs.begin(connection, int(organization_id), PERSON, clock.now() + timedelta(seconds=1))
        assert own.job_id in [job.job_id for job in await jobs.running(connection, 2)]


async def test_erasure_waits_for_the_organizations_lock_before_it_locks_the_audit_log(caller: Caller) -> None:
    """As changes do: in the other order, one of both would fail."""
    await caller.send(caller.event("e1", customer=PERSON))

    async def waits() -> bool:
        query = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = %(organization_id)s"
        return bool(await caller.rows(query))

    async with contextlib.AsyncExitStack() as exits:
        async with held(caller):
            job = (await erase(caller)).job
            [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
            change = await exits.enter_async_context(await psycopg.AsyncConnection.connect(caller.database_url))
            await change.execute("SELECT pg_advisory_xact_lock(%s, %s)", (0x7469, organization_id))
            await change.execute(
                "INSERT INTO audit_log (organization_id, last_number, high_time) VALUES (%s, 0, 'epoch')"
                " ON CONFLICT DO NOTHING",
                (organization_id,),
            )
            await change.execute("SELECT FROM audit_log WHERE organization_id = %s FOR UPDATE", (organization_id,))
        await until(waits)
        await change.rollback()
    await finished(caller, job.job_id)


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
