"""Redelivery jobs: their selection, their continuation after a process dies, and room for new notifications."""

from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import select, update

from engine.redelivery_jobs import RedeliveryJobs
from generated.tidemark.v1 import (
    condition_pb2,
    delivery_pb2,
    redelivery_job_pb2,
)
from generated.tidemark.v1.endpoint_pb2 import Endpoint
from generated.tidemark.v1.event_type_pb2 import EVENT_TYPE_ALERT_DISABLED, EVENT_TYPE_ALERT_RESOLVED
from generated.tidemark.v1.webhook_service_pb2 import (
    DisableEndpointRequest,
    EnableEndpointRequest,
    GetRedeliveryJobRequest,
    ListRedeliveryJobsRequest,
    RecoverEndpointRequest,
    RedeliverDeliveriesRequest,
    UpdateEndpointRequest,
)
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub
from runtime.clock import ManualClock
from server.calls.validation import to_timestamp
from store.deliveries import daily_partitions, redelivery_jobs, redelivery_steps
from store.deliveries.redelivery_jobs import JobKind, JobState, Selection
from store.tables.redelivery import redelivery_job
from tests.support.notifier.house import House
from tests.support.server.running import reason_of, violations_of
from tests.support.webhooks.attempts import attempt_all, claim, fan_out, record
from webhooks.deliveries import DeliveryStatus

URL = "https://hooks.example.com/tidemark"
HOUR = timedelta(hours=1)
FAILED = delivery_pb2.DELIVERY_STATUS_FAILED


def before(clock: ManualClock, span: timedelta = HOUR) -> Timestamp:
    return to_timestamp(clock.now() - span)


async def finished(
    webhooks: WebhookServiceStub, house: House, job: redelivery_job_pb2.RedeliveryJob
) -> redelivery_job_pb2.RedeliveryJob:
    """The job at its end; takes the steps that the server has not taken yet."""
    worker = RedeliveryJobs(house.database, house.clock)
    while True:
        await worker.work_once()
        now = (await webhooks.GetRedeliveryJob(GetRedeliveryJobRequest(job_id=job.job_id))).job
        if now.state != redelivery_job_pb2.REDELIVERY_STATE_RUNNING:
            return now


async def test_a_recovery_sends_only_missed_notifications(
    webhooks: WebhookServiceStub, house: House, clock: ManualClock
) -> None:
    endpoint_id = (await house.endpoint(URL)).endpoint.endpoint_id
    await house.notify(2)
    await attempt_all(house, DeliveryStatus.DELIVERED)
    failed = await house.notify(2)
    await attempt_all(house, DeliveryStatus.FAILED)
    waiting = await house.notify(1)
    await attempt_all(house, DeliveryStatus.PENDING, HOUR)
    cancelled = await house.notify(1)
    await fan_out(house)
    await webhooks.DisableEndpoint(DisableEndpointRequest(endpoint_id=endpoint_id))
    missed = await house.notify(3)
    await fan_out(house)
    await webhooks.EnableEndpoint(EnableEndpointRequest(endpoint_id=endpoint_id))
    assert await claim(house) == []

    clock.advance(timedelta(minutes=1))
    request = RecoverEndpointRequest(endpoint_id=endpoint_id, start_time=before(clock))
    job = (await webhooks.RecoverEndpoint(request)).job
    assert job.kind == redelivery_job_pb2.REDELIVERY_KIND_RECOVERY
    job = await finished(webhooks, house, job)
    assert (job.state, job.examined_count, job.redelivered_count) == (redelivery_job_pb2.REDELIVERY_STATE_DONE, 9, 7)
    assert job.HasField("finish_time")
    claims = await attempt_all(house, DeliveryStatus.DELIVERED)
    assert sorted(one.notification_id for one in claims) == sorted(failed + waiting + cancelled + missed)
    assert {(one.trigger, one.schedule_step) for one in claims} == {("RECOVERY", 0)}
    # Again: there is nothing left to recover.
    job = await finished(webhooks, house, (await webhooks.RecoverEndpoint(request)).job)
    assert (job.examined_count, job.redelivered_count) == (9, 0)


async def test_a_recovery_sends_only_notifications_of_its_time_span_and_the_filters(
    webhooks: WebhookServiceStub, house: House, clock: ManualClock
) -> None:
    await house.notify()
    clock.advance(HOUR)
    within = await house.notify()
    await house.notify(event_type="alert.resolved")
    clock.advance(HOUR)
    await house.notify()
    clock.advance(HOUR)
    await fan_out(house)
    endpoint_id = (await house.endpoint(URL, ("alert.reached", "endpoint.disabled"))).endpoint.endpoint_id
    request = RecoverEndpointRequest(
        endpoint_id=endpoint_id, start_time=before(clock, 2 * HOUR), end_time=before(clock, HOUR)
    )
    job = await finished(webhooks, house, (await webhooks.RecoverEndpoint(request)).job)
    assert (job.examined_count, job.redelivered_count) == (2, 1)
    assert [one.notification_id for one in await claim(house)] == within
    # The notifications of the house are of spend_threshold_reached.
    other = UpdateEndpointRequest(
        endpoint=Endpoint(endpoint_id=endpoint_id, condition_types=[condition_pb2.CONDITION_TYPE_COST_EXCEEDED])
    )
    other.update_mask.paths.append("condition_types")
    await webhooks.UpdateEndpoint(other)
    request = RecoverEndpointRequest(endpoint_id=endpoint_id, start_time=before(clock, 4 * HOUR))
    job = await finished(webhooks, house, (await webhooks.RecoverEndpoint(request)).job)
    assert (job.examined_count, job.redelivered_count) == (4, 0)


async def test_a_recovery_skips_notifications_that_are_in_the_outbox(
    webhooks: WebhookServiceStub, house: House, clock: ManualClock
) -> None:
    endpoint_id = (await house.endpoint(URL)).endpoint.endpoint_id
    ids = await house.notify(2)
    clock.advance(timedelta(seconds=1))
    request = RecoverEndpointRequest(endpoint_id=endpoint_id, start_time=before(clock))
    job = await finished(webhooks, house, (await webhooks.RecoverEndpoint(request)).job)
    assert (job.examined_count, job.redelivered_count) == (2, 0)
    claims = await attempt_all(house, DeliveryStatus.DELIVERED)
    assert sorted(one.notification_id for one in claims) == sorted(ids)
    assert {one.trigger for one in claims} == {"AUTOMATIC"}


async def test_a_job_sends_only_deliveries_of_its_selection(
    webhooks: WebhookServiceStub, house: House, clock: ManualClock
) -> None:
    endpoint_id = (await house.endpoint(URL)).endpoint.endpoint_id
    other_id = (await house.endpoint(URL)).endpoint.endpoint_id
    resolved = await house.notify(2, event_type="alert.resolved")
    await attempt_all(house, DeliveryStatus.FAILED)
    await house.notify(2)
    await attempt_all(house, DeliveryStatus.FAILED)
    await house.notify(2)
    await attempt_all(house, DeliveryStatus.DELIVERED)
    # The rows have their times from PostgreSQL's clock.
    start = to_timestamp(min(row.create_time for row in await house.deliveries()))
    end = to_timestamp(max(row.create_time for row in await house.deliveries()) + HOUR)

    async def redelivered(**narrowed: Any) -> int:
        request = RedeliverDeliveriesRequest(
            endpoint_id=endpoint_id, statuses=[FAILED], start_time=start, end_time=end, **narrowed
        )
        job = (await webhooks.RedeliverDeliveries(request)).job
        assert job.kind == redelivery_job_pb2.REDELIVERY_KIND_SELECTION
        return (await finished(webhooks, house, job)).redelivered_count

    assert await redelivered(customer_id="unknown") == 0
    assert await redelivered(event_types=[EVENT_TYPE_ALERT_RESOLVED]) == 2
    claims = await claim(house)
    assert sorted(one.notification_id for one in claims) == sorted(resolved)
    assert {one.endpoint_id for one in claims} == {endpoint_id}
    await record(house, claims, DeliveryStatus.DELIVERED)
    await house.notify(1, event_type="alert.disabled")
    await attempt_all(house, DeliveryStatus.FAILED)
    two = [EVENT_TYPE_ALERT_DISABLED, EVENT_TYPE_ALERT_RESOLVED]
    assert await redelivered(event_types=two) == 1
    await record(house, await claim(house), DeliveryStatus.DELIVERED)
    assert await redelivered() == 2
    untouched = [row for row in await house.deliveries() if row.endpoint_id == other_id]
    assert {row.attempt_count for row in untouched} == {1}


async def test_a_job_with_one_event_type_is_read_and_written_as_before_several(
    webhooks: WebhookServiceStub, house: House, clock: ManualClock
) -> None:
    endpoint_id = (await house.endpoint(URL)).endpoint.endpoint_id
    [resolved] = await house.notify(event_type="alert.resolved")
    await house.notify()
    await attempt_all(house, DeliveryStatus.FAILED)
    [start, end] = [row.create_time + offset for row in (await house.deliveries())[:1] for offset in (-HOUR, HOUR)]
    selection = Selection(start, end, (DeliveryStatus.FAILED,), ("alert.resolved",))
    async with house.database.transaction() as connection:
        job = await redelivery_jobs.create(
            connection, house.organization_id, endpoint_id, JobKind.SELECTION, selection, now=clock.now()
        )
        assert await connection.scalar(select(redelivery_job.c.event_type)) == "alert.resolved"
        # As an older version writes it.
        await connection.execute(update(redelivery_job).values(event_types=[]))
        found = await redelivery_jobs.get(connection, house.organization_id, job.job_id)
    assert found is not None
    assert found.event_types == job.event_types == ("alert.resolved",)
    await finished(webhooks, house, redelivery_job_pb2.RedeliveryJob(job_id=job.job_id))
    assert [one.notification_id for one in await claim(house)] == [resolved]


async def test_a_job_continues_after_its_process_died_and_leaves_room_for_new_notifications(
    house: House, clock: ManualClock
) -> None:
    await house.notify(10)
    await fan_out(house)  # no endpoint is there
    clock.advance(HOUR)
    endpoint_id = (await house.endpoint(URL)).endpoint.endpoint_id
    async with house.database.transaction() as connection:
        job = await redelivery_jobs.create(
            connection,
            house.organization_id,
            endpoint_id,
            JobKind.RECOVERY,
            Selection(clock.now() - 2 * HOUR, clock.now()),
            now=clock.now(),
        )

    async def step() -> tuple[bool, int, JobState]:
        # Each step by a process that has just started.
        moved = await RedeliveryJobs(house.database, clock, step_limit=4, due_limit=6).work_once()
        async with house.database.transaction() as connection:
            found = await redelivery_jobs.get(connection, house.organization_id, job.job_id)
        assert found is not None
        return moved, found.redelivered_count, found.state

    assert await step() == (True, 4, JobState.RUNNING)
    assert await step() == (True, 8, JobState.RUNNING)
    assert await step() == (False, 8, JobState.RUNNING)  # eight are due: enough
    claims = await claim(house)
    assert len(claims) == 4
    assert await step() == (True, 10, JobState.DONE)
    assert await step() == (False, 10, JobState.DONE)
    assert len({row.notification_id for row in await house.deliveries()}) == 10


async def test_two_processes_run_one_step_of_a_job_at_a_time(house: House, clock: ManualClock) -> None:
    endpoint_id = (await house.endpoint(URL)).endpoint.endpoint_id
    async with house.database.transaction() as connection:
        job = await redelivery_jobs.create(
            connection,
            house.organization_id,
            endpoint_id,
            JobKind.RECOVERY,
            Selection(clock.now() - HOUR, clock.now()),
            now=clock.now(),
        )
    async with house.database.transaction() as one:
        assert await redelivery_steps.step(one, house.organization_id, job.job_id, clock.now())
        async with house.database.transaction() as other:
            assert not await redelivery_steps.step(other, house.organization_id, job.job_id, clock.now())


async def test_a_job_stops_when_its_endpoint_is_disabled(
    webhooks: WebhookServiceStub, house: House, clock: ManualClock
) -> None:
    endpoint_id = (await house.endpoint(URL)).endpoint.endpoint_id
    await house.notify()
    clock.advance(timedelta(seconds=1))
    async with house.database.transaction() as connection:
        # The server cannot take a step before the endpoint is disabled: its row is held until then.
        job = await redelivery_jobs.create(
            connection,
            house.organization_id,
            endpoint_id,
            JobKind.RECOVERY,
            Selection(clock.now() - HOUR, clock.now()),
            now=clock.now(),
        )
        await webhooks.DisableEndpoint(DisableEndpointRequest(endpoint_id=endpoint_id))
    found = await finished(webhooks, house, redelivery_job_pb2.RedeliveryJob(job_id=job.job_id))
    assert (found.state, found.redelivered_count) == (redelivery_job_pb2.REDELIVERY_STATE_STOPPED, 0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await webhooks.RecoverEndpoint(RecoverEndpointRequest(endpoint_id=endpoint_id, start_time=before(clock)))
    assert reason_of(caught.value) == "ERROR_REASON_ENDPOINT_DISABLED"


async def test_jobs_are_listed_and_a_repeated_request_creates_none(
    webhooks: WebhookServiceStub, house: House, clock: ManualClock
) -> None:
    endpoint_id = (await house.endpoint(URL)).endpoint.endpoint_id
    request = RecoverEndpointRequest(endpoint_id=endpoint_id, start_time=before(clock), request_id="j-1")
    first = (await webhooks.RecoverEndpoint(request)).job
    clock.advance(timedelta(minutes=1))
    assert (await webhooks.RecoverEndpoint(request)).job == first
    second = (
        await webhooks.RedeliverDeliveries(
            RedeliverDeliveriesRequest(endpoint_id=endpoint_id, statuses=[FAILED], start_time=before(clock))
        )
    ).job
    listed = (await webhooks.ListRedeliveryJobs(ListRedeliveryJobsRequest(endpoint_id=endpoint_id))).jobs
    assert [job.job_id for job in listed] == [second.job_id, first.job_id]
    assert not (await webhooks.ListRedeliveryJobs(ListRedeliveryJobsRequest(endpoint_id="whe_other"))).jobs
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await webhooks.GetRedeliveryJob(GetRedeliveryJobRequest(job_id="rdj_nothing"))
    assert reason_of(caught.value) == "ERROR_REASON_REDELIVERY_JOB_NOT_FOUND"


async def test_a_job_is_deleted_with_the_deliveries_of_its_time(house: House, clock: ManualClock) -> None:
    endpoint_id = (await house.endpoint(URL)).endpoint.endpoint_id
    jobs = []
    for _ in range(2):
        async with house.database.transaction() as connection:
            selection = Selection(clock.now() - HOUR, clock.now())
            jobs.append(
                await redelivery_jobs.create(
                    connection, house.organization_id, endpoint_id, JobKind.RECOVERY, selection, now=clock.now()
                )
            )
    async with house.database.transaction() as connection:
        assert await redelivery_steps.step(connection, house.organization_id, jobs[0].job_id, clock.now())
    async with house.database.transaction() as connection:
        # The clock of the test lies far behind PostgreSQL's.
        await daily_partitions.drop_old(connection, timedelta(days=30))
        left = await redelivery_jobs.list_page(
            connection, house.organization_id, endpoint_id=None, after=None, limit=10
        )
    assert [job.job_id for job in left] == [jobs[1].job_id]


async def test_all_faults_of_a_job_are_reported_together(
    webhooks: WebhookServiceStub, house: House, clock: ManualClock
) -> None:
    for call, paths in (
        (webhooks.RecoverEndpoint(RecoverEndpointRequest()), ["endpoint_id", "start_time"]),
        (
            webhooks.RecoverEndpoint(
                RecoverEndpointRequest(endpoint_id="whe_1", start_time=before(clock, timedelta(days=31)))
            ),
            ["start_time"],
        ),
        (
            webhooks.RecoverEndpoint(
                RecoverEndpointRequest(
                    endpoint_id="whe_1", start_time=before(clock), end_time=before(clock, 2 * HOUR)
                )
            ),
            ["end_time"],
        ),
        (
            webhooks.RedeliverDeliveries(RedeliverDeliveriesRequest(endpoint_id="whe_1", start_time=before(clock))),
            ["statuses"],
        ),
        (
            webhooks.RedeliverDeliveries(
                RedeliverDeliveriesRequest(
                    endpoint_id="whe_1",
                    start_time=before(clock),
                    statuses=[delivery_pb2.DELIVERY_STATUS_UNSPECIFIED],
                )
            ),
            ["statuses[0]"],
        ),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert violations_of(caught.value) == paths
