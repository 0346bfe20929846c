"""One organization uses all of its share: calls and backfills of another organization are not delayed."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from functools import partial

import grpc
import pytest

from engine.backfill import parts
from engine.backfill.backfills import Backfills
from engine.rules.registry import RulesRegistry
from engine.rules.transaction import Transactions
from evaluator.alerts import AlertRule
from generated.tidemark.v1 import (
    alert_service_pb2,
    customer_alert_pb2,
    customer_pb2,
    usage_pb2,
)
from runtime.clock import ManualClock
from store.postgres.database import Database
from tests.support.postgres.nodes import workers
from tests.support.server.running import reason_of
from tests.support.usage.caller import (
    DEADLINE,
    Caller,
    beside,
    ingest_held,
    settings,
    until,
    usage_alert,
    waiting_for_locks,
)
from tests.support.usage.organizations import organization

CALLERS = 60


@pytest.fixture
async def neighbour(caller: Caller, clock: ManualClock) -> Caller:
    """A caller of the same server, as another organization."""
    return await other_organization(caller, clock)


async def other_organization(caller: Caller, clock: ManualClock) -> Caller:
    """A caller of the same server, as another organization."""
    name, key = await organization(caller.database_url, clock)
    return Caller(caller.server, clock, caller.database_url, name, key)


async def everything_is_answered(neighbour: Caller) -> None:
    """A change, a read, events in single calls and an event on a stream are answered."""
    async with asyncio.timeout(DEADLINE):
        alert = await neighbour.create(usage_alert("10"))
        await neighbour.put_customer(customer_pb2.Customer(customer_id="acme"))
        for number in range(3):
            answer = await neighbour.send(neighbour.event(f"{alert.alert_id}-{number}", "4"))
            assert answer.accepted == 1
        stream = neighbour.stream()
        await stream.write(
            alert_service_pb2.EvaluateUsageRequest(
                batch=usage_pb2.UsageBatch(events=[neighbour.event(f"{alert.alert_id}-s", "4")])
            )
        )
        answered = await stream.read()
        assert isinstance(answered, alert_service_pb2.EvaluateUsageResponse)
        assert answered.outcome.accepted == 1
        stream.cancel()
        assert (await neighbour.state(alert.alert_id)).status == customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM


async def test_changes_waiting_for_the_lock_of_one_organization_leave_connections_to_another(
    caller: Caller, neighbour: Caller
) -> None:
    async with ingest_held(caller):
        changes = [asyncio.create_task(caller.create_only(usage_alert(str(number + 1)))) for number in range(CALLERS)]
        puts = [
            asyncio.create_task(caller.put_customer(customer_pb2.Customer(customer_id=f"c{number}")))
            for number in range(CALLERS)
        ]
        await waiting_for_locks(caller)
        await everything_is_answered(neighbour)
        assert not any(one.done() for one in changes)
    # Each of the changes was answered afterwards.
    assert len({alert.alert_id for alert in await asyncio.gather(*changes)}) == CALLERS
    await asyncio.gather(*puts)


async def test_pending_events_of_one_organization_leave_room_for_another(caller: Caller, clock: ManualClock) -> None:
    async with beside(caller, settings(max_pending_events=200)) as noisy:
        neighbour = await other_organization(noisy, clock)
        async with ingest_held(noisy):
            batches = [
                asyncio.create_task(noisy.send(*(noisy.event(f"{number}-{place}") for place in range(20))))
                for number in range(CALLERS)
            ]
            streams = [noisy.stream() for _ in range(5)]
            for number, stream in enumerate(streams):
                events = [noisy.event(f"s{number}-{place}") for place in range(20)]
                await stream.write(alert_service_pb2.EvaluateUsageRequest(batch=usage_pb2.UsageBatch(events=events)))

            async def refused() -> bool:
                return sum(one.done() for one in batches) >= CALLERS - 5

            await until(refused)
            await everything_is_answered(neighbour)
        ended = await asyncio.gather(*batches, return_exceptions=True)
        codes = {one.code() for one in ended if isinstance(one, grpc.aio.AioRpcError)}
        assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        # A stream waits instead of being refused.
        for stream in streams:
            answer = await asyncio.wait_for(stream.read(), DEADLINE)
            assert isinstance(answer, alert_service_pb2.EvaluateUsageResponse)
            assert answer.outcome.accepted == 20
            stream.cancel()


async def test_calls_above_the_share_of_an_organization_are_refused(caller: Caller, clock: ManualClock) -> None:
    async with beside(caller, replace(settings(), organization_calls=4, organization_streams=2)) as noisy:
        neighbour = await other_organization(noisy, clock)
        async with ingest_held(noisy):
            calls = [asyncio.create_task(noisy.create_only(usage_alert(str(number + 1)))) for number in range(20)]

            async def refused() -> bool:
                return sum(one.done() for one in calls) == 16

            await until(refused)
            await everything_is_answered(neighbour)
            for call in calls:
                call.cancel()  # the clients cancel before they are answered
        ended = await asyncio.gather(*calls, return_exceptions=True)
        reasons = [reason_of(one) for one in ended if isinstance(one, grpc.aio.AioRpcError)]
        assert reasons == ["ERROR_REASON_OVERLOADED"] * 16

        async def has_room() -> bool:
            try:
                await noisy.create_only(usage_alert("1"))
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                return False
            return True

        await until(has_room)
        # Streams that are cancelled before their answers are read free their share, too.
        for number in range(6):
            await until(partial(stream_begins, noisy, number))


async def stream_begins(noisy: Caller, number: int) -> bool:
    """Whether the share has room for one more stream, which is then cancelled."""
    stream = noisy.stream()
    try:
        await stream.write(
            alert_service_pb2.EvaluateUsageRequest(
                batch=usage_pb2.UsageBatch(events=[noisy.event(f"begin-{number}")])
            )
        )
        answer = await asyncio.wait_for(stream.read(), DEADLINE)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        return False
    stream.cancel()
    return isinstance(answer, alert_service_pb2.EvaluateUsageResponse)


async def test_backfills_of_two_organizations_take_turns(
    caller: Caller, neighbour: Caller, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_once = Backfills.run_once

    async def never(_: Backfills) -> bool:
        return False

    monkeypatch.setattr(Backfills, "run_once", never)  # stops the backfills of the server
    await caller.send(caller.event("e1", "15"))
    await neighbour.send(neighbour.event("e1", "15"))
    many = [await caller.create_only(usage_alert(str(number + 1))) for number in range(5)]
    one = await neighbour.create_only(usage_alert("10"))
    # The first backfill always fails; the others do not wait for it.
    broken = min(alert.alert_id for alert in many)
    evaluate = parts.evaluate_part

    async def breaking(*arguments: object, **options: object) -> parts.Part:
        if isinstance(arguments[1], AlertRule) and arguments[1].alert_id == broken:
            raise ZeroDivisionError
        return await evaluate(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("engine.backfill.steps.evaluate_part", breaking)

    async def waiting() -> tuple[int, int]:
        counts = []
        for who in (caller, neighbour):
            [[count]] = await who.rows(
                "SELECT count(*) FROM alert WHERE organization_id = %(organization_id)s AND visit_after IS NOT NULL"
            )
            counts.append(count)
        return counts[0], counts[1]

    database = Database(caller.database_url, pool_size=2)
    try:
        mine = Backfills(database, clock, Transactions(database, clock, timedelta(days=34), RulesRegistry()))
        assert await waiting() == (5, 1)
        turns = 2 if workers() else 1  # on a cluster, the next step sees that all nodes show what a backfill found
        for _ in range(turns):
            assert await run_once(mine)
        mine_left, others_left = await waiting()
        assert mine_left >= 5 - turns, "a turn is one step of each organization"
        assert others_left == 0, "a turn is one step of each organization"
        while await run_once(mine):
            pass
        assert await waiting() == (1, 0), "all backfills but the failing one complete"
    finally:
        await database.close()
    assert (await neighbour.state(one.alert_id)).status == customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM
