"""Alerts created while clients stream through two servers: no usage is missed, and no transition notifies twice."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from generated.tidemark.v1 import alert_pb2, alert_service_pb2, usage_pb2
from runtime.clock import ManualClock
from tests.support.usage.caller import DEADLINE, Caller, StreamCall, beside, on_customer, usage_alert
from tests.support.usage.organizations import organization

EXAMPLES = int(os.environ.get("TIDEMARK_TEST_EXAMPLES", "25"))  # interleavings; hundreds take minutes
CUSTOMERS = ("ann", "bob", "cid", "dan")
REGIONS = ("eu", "us")

Batch = Sequence[tuple[str, int, str]]  # customer, quantity and region of each event


@dataclass(frozen=True)
class Sending:
    """The batches of one client, each after a pause in milliseconds; pipelined: the client waits for no answer."""

    pauses: Sequence[int]
    batches: Sequence[Batch]
    pipelined: bool


@dataclass(frozen=True)
class Creating:
    """An alert that is created after a pause, in milliseconds."""

    pause: int
    level: int
    customer: str | None
    by_region: bool
    evaluate: bool


pauses = st.integers(0, 12)
events = st.tuples(st.sampled_from(CUSTOMERS), st.integers(1, 5), st.sampled_from(REGIONS))
batches = st.lists(events, min_size=1, max_size=12)


@st.composite
def sendings(draw: st.DrawFn) -> Sending:
    sent = draw(st.lists(batches, min_size=2, max_size=6))
    waits = draw(st.lists(pauses, min_size=len(sent), max_size=len(sent)))
    return Sending(waits, sent, draw(st.booleans()))


creatings = st.builds(
    Creating,
    pauses,
    st.integers(1, 60),
    st.sampled_from([None, None, *CUSTOMERS]),
    st.booleans(),
    st.sampled_from([True, True, False]),
)


async def send(caller: Caller, name: str, sending: Sending) -> None:
    """Streams the batches; each is answered, and all of its events are new."""
    stream = caller.stream()
    unanswered = 0
    for number, (pause, batch) in enumerate(zip(sending.pauses, sending.batches, strict=True)):
        await asyncio.sleep(pause / 1000)
        await stream.write(
            alert_service_pb2.EvaluateUsageRequest(
                batch=usage_pb2.UsageBatch(
                    events=[
                        caller.event(f"{name}-{number}-{place}", str(quantity), customer, region=region)
                        for place, (customer, quantity, region) in enumerate(batch)
                    ]
                )
            )
        )
        unanswered += len(batch)
        if not sending.pipelined:
            unanswered -= await accepted(stream)
    while unanswered:
        unanswered -= await accepted(stream)
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF


async def accepted(stream: StreamCall) -> int:
    """The number of events that the next answer accepted; the answer has no duplicate and no rejection."""
    answer = await stream.read()
    assert isinstance(answer, alert_service_pb2.EvaluateUsageResponse)
    assert not answer.outcome.duplicates
    assert not answer.outcome.rejected
    return answer.outcome.accepted


async def create(caller: Caller, creating: Creating) -> alert_pb2.Alert:
    """Creates an alert after its pause."""
    await asyncio.sleep(creating.pause / 1000)
    alert = usage_alert(str(creating.level), groups=[("region", None)] if creating.by_region else ())
    if creating.customer is not None:
        alert.scope.CopyFrom(on_customer(creating.customer))
    return await caller.create_only(alert, evaluate=creating.evaluate)


@pytest.fixture
async def other(caller: Caller) -> AsyncIterator[Caller]:
    """A caller of a second server on the same database."""
    async with beside(caller) as other:
        yield other


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    before=sendings(),
    sent=st.lists(sendings(), min_size=3, max_size=4),
    created=st.lists(creatings, min_size=1, max_size=4),
)
async def test_alerts_created_during_streams_miss_no_usage_and_notify_once(
    caller: Caller, clock: ManualClock, other: Caller, before: Sending, sent: list[Sending], created: list[Creating]
) -> None:
    name, key = await organization(caller.database_url, clock)
    own = [Caller(one.server, clock, caller.database_url, name, key) for one in (caller, other)]
    await send(own[0], "before", before)
    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as together:
        for number, sending in enumerate(sent):
            together.create_task(send(own[number % 2], str(number), sending))
        creating = [together.create_task(create(own[number % 2], one)) for number, one in enumerate(created)]
    totals: dict[tuple[str, ...], int] = {}
    for sending in (before, *sent):
        for customer, quantity, region in (event for batch in sending.batches for event in batch):
            for gauge in ((customer,), (customer, region)):
                totals[gauge] = totals.get(gauge, 0) + quantity
    for task, one in zip(creating, created, strict=True):
        alert = task.result()
        await own[1].backfilled(alert.alert_id)
        stored = await own[0].notifications()
        for customer in {gauge[0] for gauge in totals if one.customer in (None, gauge[0])}:
            state = await own[1].state(alert.alert_id, customer)
            expected = {
                gauge[1:]: total
                for gauge, total in totals.items()
                if gauge[0] == customer and len(gauge) == 1 + one.by_region
            }
            found = {tuple(pair.value for pair in item.gauge.group): item for item in state.gauges}
            assert {group: int(item.gauge.value) for group, item in found.items()} == expected
            for group, total in expected.items():
                [threshold] = found[group].thresholds
                assert threshold.in_alarm is (total >= one.level)
                assert not (threshold.silent and one.evaluate)
                notified = [
                    crossing
                    for notification in stored
                    if (notification.alert_id, notification.customer_id) == (alert.alert_id, customer)
                    and tuple(pair["value"] for pair in notification.body["data"]["gauge"]["group"]) == group
                    for crossing in notification.transitions
                ]
                assert len(notified) == (threshold.in_alarm and not threshold.silent)
                for crossing in notified:
                    assert crossing.kind == "REACHED"
                    assert int(crossing.value) >= one.level
                    assert int(crossing.previous_value) < one.level or not crossing.event_id
