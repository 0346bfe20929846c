"""Limits with an enforcement and a window, over a real channel."""

from typing import Any

import grpc
import pytest

from generated.tidemark.v1 import account_service_pb2 as messages
from generated.tidemark.v1 import account_service_pb2_grpc, limit_pb2, limit_window_pb2, metric_pb2
from tests.support.facts.refusals import assert_refused, assert_violations
from tests.support.server.sharing import shares_server

pytestmark = shares_server

Stub = account_service_pb2_grpc.AccountServiceStub

HARD, SOFT, NONE = (
    limit_pb2.LIMIT_ENFORCEMENT_HARD,
    limit_pb2.LIMIT_ENFORCEMENT_SOFT,
    limit_pb2.LIMIT_ENFORCEMENT_NONE,
)
HOURLY = {"calendar": {"unit": limit_window_pb2.CALENDAR_UNIT_HOUR}}
DAILY = {"calendar": {"unit": limit_window_pb2.CALENDAR_UNIT_DAY}}
ROLLING = {"rolling": {"duration": {"seconds": 3600}}}
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


async def put(accounts: Stub, limit_id: str = "l1", metric: str = "calls", **fields: Any) -> limit_pb2.Limit:
    """Puts a limit of a metric for acme; returns what is stored."""
    limit = limit_pb2.Limit(
        **{
            "limit_id": limit_id,
            "customer": {"customer_id": "acme"},
            "quantity": {"metric_id": metric},
            "amount": "5",
            **fields,
        }
    )
    return (await accounts.PutLimit(messages.PutLimitRequest(limit=limit))).limit


async def put_metric(accounts: Stub, metric_id: str, aggregation: metric_pb2.Aggregation.ValueType) -> None:
    metric = metric_pb2.Metric(metric_id=metric_id, aggregation=aggregation)
    await accounts.PutMetric(messages.PutMetricRequest(metric=metric))


async def test_a_put_changes_the_enforcement(accounts: Stub) -> None:
    for enforcement in (HARD, NONE, SOFT, HARD):
        assert (await put(accounts, enforcement=enforcement)).enforcement == enforcement
    assert (await put(accounts)).enforcement == NONE


@pytest.mark.parametrize("before", [{"billing_period": {}}, HOURLY, ROLLING])
@pytest.mark.parametrize("after", [{}, DAILY, {"rolling": {"duration": {"seconds": 60}}}])
async def test_a_put_does_not_change_the_window(accounts: Stub, before: Any, after: Any) -> None:
    kept = await put(accounts, window=before)
    other = {"window": after} if after else {}
    if before == {"billing_period": {}} and not after:
        assert await put(accounts, **other) == kept
        return
    await assert_refused(put(accounts, **other), PRECONDITION, "LIMIT_FIXED")
    await put(accounts, "l2", **other)  # another window makes another limit
    await assert_refused(put(accounts, "l3", **other), grpc.StatusCode.ALREADY_EXISTS, "LIMIT_EXISTS")


async def test_a_deleted_limit_of_a_window_leaves_room_for_another(accounts: Stub) -> None:
    await put(accounts, window=HOURLY, enforcement=HARD)
    await put(accounts, "l2", window=DAILY)
    await accounts.DeleteLimit(messages.DeleteLimitRequest(limit_id="l1"))
    made = await put(accounts, "l3", window=HOURLY, amount="7")
    assert (made.limit_id, made.amount, made.enforcement) == ("l3", "7", NONE)


@pytest.mark.parametrize(
    ("window", "path"),
    [
        ({}, "kind"),
        ({"calendar": {}}, "calendar.unit"),
        ({"calendar": {"unit": 9}}, "calendar.unit"),
        ({"rolling": {}}, "rolling.duration"),
        ({"rolling": {"duration": {"seconds": 59}}}, "rolling.duration"),
        ({"rolling": {"duration": {"seconds": 0}}}, "rolling.duration"),
        ({"rolling": {"duration": {"seconds": -60}}}, "rolling.duration"),
        ({"rolling": {"duration": {"seconds": 90}}}, "rolling.duration"),
        ({"rolling": {"duration": {"seconds": 60, "nanos": 1}}}, "rolling.duration"),
        ({"rolling": {"duration": {"seconds": 31 * 86400 + 60}}}, "rolling.duration"),
    ],
)
async def test_a_bad_window_is_a_violation(accounts: Stub, window: Any, path: str) -> None:
    await assert_violations(put(accounts, window=window), f"limit.window.{path}")


async def test_an_unknown_enforcement_is_a_violation(accounts: Stub) -> None:
    await assert_violations(put(accounts, enforcement=17), "limit.enforcement")


@pytest.mark.parametrize("minutes", [1, 31 * 24 * 60])
async def test_the_shortest_and_the_longest_rolling_window_come_back(accounts: Stub, minutes: int) -> None:
    made = await put(accounts, window={"rolling": {"duration": {"seconds": 60 * minutes}}})
    assert made.window.rolling.duration.seconds == 60 * minutes


@pytest.mark.parametrize(
    "aggregation", [metric_pb2.AGGREGATION_MAX, metric_pb2.AGGREGATION_LATEST, metric_pb2.AGGREGATION_UNIQUE_COUNT]
)
async def test_a_limit_of_a_metric_that_cannot_be_added_up_is_not_enforced(
    accounts: Stub, aggregation: metric_pb2.Aggregation.ValueType
) -> None:
    unique = "user" if aggregation == metric_pb2.AGGREGATION_UNIQUE_COUNT else ""
    metric = metric_pb2.Metric(metric_id="seats", aggregation=aggregation, unique_property=unique)
    await accounts.PutMetric(messages.PutMetricRequest(metric=metric))
    for enforcement in (HARD, SOFT):
        refused = put(accounts, metric="seats", enforcement=enforcement)
        await assert_refused(refused, PRECONDITION, "METRIC_NOT_ENFORCEABLE")
    await put(accounts, metric="seats")
    await assert_refused(put(accounts, metric="seats", enforcement=HARD), PRECONDITION, "METRIC_NOT_ENFORCEABLE")
    assert (await put(accounts, metric="seats", amount="6")).amount == "6"


@pytest.mark.parametrize("aggregation", [metric_pb2.AGGREGATION_SUM, metric_pb2.AGGREGATION_COUNT])
async def test_a_limit_of_a_metric_that_can_be_added_up_is_enforced(
    accounts: Stub, aggregation: metric_pb2.Aggregation.ValueType
) -> None:
    await put_metric(accounts, "calls", aggregation)
    assert (await put(accounts, enforcement=HARD)).enforcement == HARD


async def test_a_metric_that_is_created_later_keeps_its_aggregation_and_the_limit(accounts: Stub) -> None:
    await put(accounts, enforcement=HARD)
    await put_metric(accounts, "calls", metric_pb2.AGGREGATION_MAX)
    # The stored limit stays as it is, also when it is put again; a change of it is refused.
    assert (await put(accounts, enforcement=HARD)).enforcement == HARD
    await assert_refused(put(accounts, enforcement=HARD, amount="6"), PRECONDITION, "METRIC_NOT_ENFORCEABLE")
    assert (await put(accounts, amount="6")).enforcement == NONE
