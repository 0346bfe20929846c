"""The notifications that an answer to usage left out, and answers that are larger than by default."""

from datetime import timedelta

import grpc
import pytest

from engine.upkeep import Upkeep
from generated.tidemark.v1 import alert_service_pb2, alert_service_pb2_grpc, threshold_pb2, usage_pb2
from runtime.clock import ManualClock
from server.calls.answer_size import DEFAULT_ANSWER_BYTES, MAX_ANSWER_BYTES
from tests.support.notifications.watching import pool
from tests.support.server.running import reason_of, violations_of
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.caller import DEADLINE, Caller, Outcome, beside, usage_alert
from tests.support.usage.organizations import organization

pytestmark = shares_server


THRESHOLDS = [threshold_pb2.Threshold(value=str(level), code=f"{level:03d}" + "👍" * 125) for level in range(1, 21)]
CUSTOMERS = [f"customer-{number:03d}" for number in range(200)]


async def sent(caller: Caller) -> Outcome:
    """The outcome of a batch with 200 notifications of 20 transitions each, of which not all fit into an answer."""
    await caller.create(usage_alert(thresholds=THRESHOLDS))
    outcome = await caller.send(*(caller.event("e", "20", customer) for customer in CUSTOMERS))
    assert 0 < outcome.omitted.transition_count < 200 * 20
    return outcome


def left_out(outcome: Outcome) -> set[str]:
    """The customers of whose 20 transitions at least one is not in the outcome."""
    shown = [one.gauge.customer_id for one in outcome.transitions]
    return {customer for customer in CUSTOMERS if shown.count(customer) < 20}


async def read(caller: Caller, token: str, size: int = 1000) -> list[str]:
    """The customers of the notifications that a token stands for, from all pages."""
    request = alert_service_pb2.ListNotificationsRequest(page_token=token, page_size=size)
    found: list[str] = []
    while True:
        page = await caller.alerts.ListNotifications(request, metadata=caller.metadata, timeout=DEADLINE)
        assert len(page.notifications) <= size
        assert page.ByteSize() <= DEFAULT_ANSWER_BYTES
        found += [one.customer_id for one in page.notifications]
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def test_omitted_notifications_are_read_with_the_token_after_later_commits(caller: Caller) -> None:
    outcome = await sent(caller)
    expected = left_out(outcome)
    await caller.send(*(caller.event("later", "1", f"later-{number}") for number in range(20)))
    await caller.send(*(caller.event("again", "-20", customer) for customer in CUSTOMERS))
    async with beside(caller) as other:
        found = await read(other, outcome.omitted.notifications_page_token)
    assert (len(found), set(found)) == (len(expected), expected)
    assert await read(caller, outcome.omitted.notifications_page_token, 7) == found


async def test_token_of_omitted_notifications_is_refused_with_filters_and_for_another_organization(
    caller: Caller, clock: ManualClock
) -> None:
    token = (await sent(caller)).omitted.notifications_page_token
    name, key = await organization(caller.database_url, clock)
    stranger = Caller(caller.server, clock, caller.database_url, name, key)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await read(stranger, token)
    assert reason_of(refused.value) == "ERROR_REASON_PAGE_TOKEN_INVALID"
    request = alert_service_pb2.ListNotificationsRequest(page_token=token, customer_ids=["a"], page_size=-1)
    request.start_time.GetCurrentTime()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await caller.alerts.ListNotifications(request, metadata=caller.metadata)
    assert violations_of(refused.value) == ["start_time", "customer_ids", "page_size"]


async def test_omitted_transitions_that_do_not_notify_have_no_token(caller: Caller) -> None:
    only_resolved = [
        threshold_pb2.Threshold(value=one.value, code=one.code, notify_on=[threshold_pb2.TRANSITION_KIND_RESOLVED])
        for one in THRESHOLDS
    ]
    await caller.create(usage_alert(thresholds=only_resolved))
    outcome = await caller.send(*(caller.event("e", "20", customer) for customer in CUSTOMERS))
    assert outcome.omitted.transition_count > 0
    assert outcome.omitted.HasField("ingest_time")
    assert not outcome.omitted.notifications_page_token


@own_server
async def test_omitted_notifications_are_deleted_with_their_retention(caller: Caller, clock: ManualClock) -> None:
    kept = timedelta(days=2)
    outcome = await sent(caller)
    token = outcome.omitted.notifications_page_token
    async with pool(caller) as database:
        upkeep = Upkeep(database, clock, timedelta(days=400), kept)
        clock.advance(kept)
        await upkeep.run_once()
        for _ in range(2):  # it gives them positions; on a cluster, the next read deletes what was pending
            assert set(await read(caller, token)) == left_out(outcome)
        clock.advance(timedelta(microseconds=1))
        await upkeep.run_once()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await read(caller, token)
    assert reason_of(refused.value) == "ERROR_REASON_PAGE_TOKEN_INVALID"


@pytest.mark.parametrize("streamed", [False, True])
async def test_answer_has_as_many_bytes_as_its_request_asks_for(caller: Caller, streamed: bool) -> None:
    await caller.create(usage_alert(thresholds=THRESHOLDS))
    customers = [f"customer-{number:03d}" for number in range(400)]
    batch = usage_pb2.UsageBatch(
        events=[caller.event("e", "20", customer) for customer in customers], max_answer_bytes=MAX_ANSWER_BYTES
    )
    unlimited = (("grpc.max_receive_message_length", -1),)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{caller.server.port}", options=unlimited) as channel:
        stub = alert_service_pb2_grpc.AlertServiceStub(channel)
        if streamed:
            stream = stub.EvaluateUsage(metadata=caller.metadata, timeout=DEADLINE)
            await stream.write(alert_service_pb2.EvaluateUsageRequest(batch=batch))
            answer = await stream.read()
            assert isinstance(answer, alert_service_pb2.EvaluateUsageResponse)
            outcome = answer.outcome
            stream.cancel()
        else:
            request = alert_service_pb2.EvaluateUsageBatchRequest(batch=batch)
            outcome = (await stub.EvaluateUsageBatch(request, metadata=caller.metadata, timeout=DEADLINE)).outcome
    assert len(outcome.transitions) == 400 * 20
    assert not outcome.HasField("omitted")
    assert 2 * DEFAULT_ANSWER_BYTES < outcome.ByteSize() <= MAX_ANSWER_BYTES


@pytest.mark.parametrize("size", [-1, 1, DEFAULT_ANSWER_BYTES - 1, MAX_ANSWER_BYTES + 1])
async def test_max_answer_bytes_out_of_bounds_is_refused(caller: Caller, size: int) -> None:
    batch = usage_pb2.UsageBatch(events=[caller.event("e")], max_answer_bytes=size)
    request = alert_service_pb2.EvaluateUsageBatchRequest(batch=batch)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await caller.alerts.EvaluateUsageBatch(request, metadata=caller.metadata)
    assert violations_of(refused.value) == ["batch.max_answer_bytes"]
    listing = alert_service_pb2.ListNotificationsRequest(max_answer_bytes=size)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await caller.alerts.ListNotifications(listing, metadata=caller.metadata)
    assert violations_of(refused.value) == ["max_answer_bytes"]
    assert await caller.event_count() == 0
