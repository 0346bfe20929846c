"""Puts of metrics and plans: names change without a lock, and a new metric evaluates all alerts on it, in parts."""

import asyncio
from functools import partial

import grpc
import pytest

from engine.limits import EngineLimits, NewMetricLimits
from engine.puts import new_metrics
from generated.tidemark.v1 import account_service_pb2, metric_pb2, plan_pb2, usage_pb2
from runtime.clock import ManualClock
from store.alerts.backfills_of_metrics import PartSize
from tests.support.server.running import reason_of
from tests.support.usage.caller import Caller, beside, calling, on_customer, until, usage_alert
from tests.support.usage.organizations import organization

CUSTOMERS = [f"c{number}" for number in range(9)]
EPOCH = "SELECT epoch FROM organization WHERE organization_id = %(organization_id)s"
UNFINISHED = "SELECT 1 FROM metric WHERE organization_id = %(organization_id)s AND backfill_after IS NOT NULL"


async def put(
    caller: Caller,
    metric_id: str = "calls",
    aggregation: metric_pb2.Aggregation.ValueType = metric_pb2.AGGREGATION_COUNT,
    display_name: str = "",
) -> metric_pb2.Metric:
    """Puts a metric that counts the raw events `call`."""
    metric = metric_pb2.Metric(
        metric_id=metric_id, aggregation=aggregation, event_name="call", display_name=display_name
    )
    request = account_service_pb2.PutMetricRequest(metric=metric)
    return (await caller.accounts.PutMetric(request, metadata=caller.metadata)).metric


def raw(caller: Caller, customer: str) -> usage_pb2.UsageEvent:
    event = caller.event("r1", "", customer, metric="", at=None)
    event.event_name = "call"
    return event


async def used_before_the_metric(caller: Caller) -> list[str]:
    """An alert for each customer, and one raw event of each; returns the ids of the alerts."""
    created = [await caller.create(usage_alert("1", scope=on_customer(name))) for name in CUSTOMERS]
    await caller.create(usage_alert("1", metric="others"))
    await caller.send(*(raw(caller, name) for name in CUSTOMERS))
    assert await caller.notifications() == []
    return sorted(one.alert_id for one in created)


async def all_notified(caller: Caller, alerts: list[str]) -> bool:
    """Whether all alerts are notified, each once, and the new metric is finished."""
    found = sorted(one.alert_id for one in await caller.notifications())
    return found == alerts and not await caller.rows(UNFINISHED)


FEW_ALERTS = [
    EngineLimits(new_metrics=NewMetricLimits(under_the_lock=part, later=part))
    for part in (PartSize(1_000, 1), PartSize(2, 100), PartSize(3, 2))
]


@pytest.mark.parametrize("engine_limits", FEW_ALERTS, ids=[str(one.new_metrics.later) for one in FEW_ALERTS])
async def test_new_metric_evaluates_all_alerts_that_were_created_before_it(
    caller: Caller, clock: ManualClock, engine_limits: EngineLimits
) -> None:
    """Those of another organization, whose metric of that id does not exist yet, are left as they are."""
    neighbour_key = await organization(caller.database_url, clock)
    async with calling(caller.database_url, clock, *neighbour_key, engine_limits=engine_limits) as neighbour:
        alerts = await used_before_the_metric(caller)
        await used_before_the_metric(neighbour)
        await put(caller)

        await until(partial(all_notified, caller, alerts))
        assert await neighbour.notifications() == []


@pytest.mark.parametrize(
    "engine_limits",
    [EngineLimits(new_metrics=NewMetricLimits(under_the_lock=PartSize(4, 2)))],
    ids=[pytest.HIDDEN_PARAM],
)
async def test_parts_that_a_process_left_go_on_in_another_one(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    alerts = await used_before_the_metric(caller)
    work = new_metrics.NewMetrics.run_once

    async def nothing(self: new_metrics.NewMetrics) -> bool:
        return False

    with monkeypatch.context() as stopped:
        stopped.setattr(new_metrics.NewMetrics, "run_once", nothing)
        await put(caller)
        assert await caller.rows(UNFINISHED)
    assert new_metrics.NewMetrics.run_once is work

    async with beside(caller):
        await until(partial(all_notified, caller, alerts))


async def test_changed_name_of_a_metric_takes_no_new_epoch(caller: Caller) -> None:
    await put(caller)
    before = await caller.rows(EPOCH)
    assert (await put(caller, display_name="Calls")).display_name == "Calls"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await put(caller, aggregation=metric_pb2.AGGREGATION_MAX)
    assert reason_of(refused.value) == "ERROR_REASON_METRIC_AGGREGATION_FIXED"
    assert await caller.rows(EPOCH) == before


async def test_puts_of_plans_take_no_new_epoch(caller: Caller) -> None:
    await put(caller)
    before = await caller.rows(EPOCH)

    async def put_plan(name: str) -> plan_pb2.Plan:
        request = account_service_pb2.PutPlanRequest(plan=plan_pb2.Plan(plan_id="gold", display_name=name))
        return (await caller.accounts.PutPlan(request, metadata=caller.metadata)).plan

    created = await put_plan("Gold")
    assert (await put_plan("Gold")).update_time == created.update_time
    assert (await put_plan("Pure gold")).display_name == "Pure gold"
    assert await caller.rows(EPOCH) == before


async def test_concurrent_puts_of_a_new_metric_create_it_once(caller: Caller) -> None:
    """Two servers; half of the puts state another aggregation, and those of one of the two are refused."""
    async with beside(caller) as other:

        async def put_one(number: int) -> str | None:
            aggregation = (metric_pb2.AGGREGATION_COUNT, metric_pb2.AGGREGATION_SUM)[number % 2]
            try:
                await put((caller, other)[number // 2 % 2], aggregation=aggregation)
            except grpc.aio.AioRpcError as error:
                return reason_of(error)
            return None

        answers = await asyncio.gather(*(put_one(number) for number in range(20)))
    refused = ["ERROR_REASON_METRIC_AGGREGATION_FIXED"] * 10
    assert (answers[::2], answers[1::2]) in (([None] * 10, refused), (refused, [None] * 10))
    assert await caller.rows("SELECT count(*) FROM metric WHERE organization_id = %(organization_id)s") == [(1,)]
