"""Raw events draw on balances in the units of every metric that they count in, and their cost draws once."""

from datetime import timedelta
from decimal import Decimal

from generated.tidemark.v1 import account_service_pb2, condition_pb2, filter_pb2, metric_pb2, usage_pb2
from runtime.clock import ManualClock
from tests.support.balances.holder import Holder, alert
from tests.support.usage.caller import Caller, shortened
from tests.support.usage.voiding import outcomes, void


async def put_metrics(caller: Caller) -> None:
    """The tokens of all raw events, and the number of those of the model "large"."""
    large = metric_pb2.EventFilter(key="model", operator=filter_pb2.FILTER_OPERATOR_INCLUDES, values=["large"])
    for metric in (
        metric_pb2.Metric(metric_id="tokens", event_name="completion", quantity_property="tokens"),
        metric_pb2.Metric(metric_id="large", event_name="completion", event_filters=[large]),
    ):
        await caller.accounts.PutMetric(account_service_pb2.PutMetricRequest(metric=metric), metadata=caller.metadata)


def raw(caller: Caller, event_id: str, tokens: str, model: str, cost: str = "") -> usage_pb2.UsageEvent:
    event = caller.event(event_id, "", metric="", cost=cost, tokens=tokens, model=model)
    event.event_name = "completion"
    return event


async def test_raw_event_draws_in_every_unit_and_a_void_gives_all_of_it_back(caller: Caller) -> None:
    holder = Holder(caller)
    await put_metrics(caller)
    await holder.put("token credit", "1000", metric="tokens")
    await holder.put("calls", "2", metric="large")
    await holder.put("money", "10")
    low = condition_pb2.LowRemainingCommitBalanceReachedCondition()
    low.quantity.metric_id = "tokens"
    await caller.create(alert("500", low_remaining_commit_balance_reached=low))
    first = await caller.send(raw(caller, "r1", "300", "large", "4"), raw(caller, "r2", "100", "small", "1"))
    assert not first.transitions
    second = await caller.send(raw(caller, "r3", "200", "large"))
    assert [(one.level, one.event_id) for one in shortened(second.transitions)] == [("500", "r3")]
    assert await holder.remaining() == {"token credit": 400, "calls": 0, "money": 5}
    await caller.send(raw(caller, "r4", "0", "large"))
    assert (await holder.overage())["large"] == 1
    assert outcomes(await void(caller, "r1", "r2")) == ["VOIDED", "VOIDED"]
    assert await holder.remaining() == {"token credit": 800, "calls": 0, "money": 10}
    assert (await holder.overage()).get("large", Decimal(0)) == 0
    await void(caller, "r3", "r4")
    assert await holder.remaining() == {"token credit": 1000, "calls": 2, "money": 10}


async def test_raw_event_and_an_event_that_names_the_metric_draw_on_the_same_balance(caller: Caller) -> None:
    holder = Holder(caller)
    await put_metrics(caller)
    await holder.put("token credit", "1000", metric="tokens")
    await caller.send(raw(caller, "r1", "300", "small"), caller.event("e1", "50", metric="tokens"))
    assert await holder.remaining() == {"token credit": 650}
    await void(caller, "e1")
    assert await holder.remaining() == {"token credit": 700}
    await void(caller, "r1")
    assert await holder.remaining() == {"token credit": 1000}


async def test_raw_event_from_before_its_metric_draws_nothing_and_gives_nothing_back(
    caller: Caller, clock: ManualClock
) -> None:
    holder = Holder(caller)
    await holder.put("token credit", "1000", metric="tokens")
    clock.advance(timedelta(seconds=1))
    await caller.send(raw(caller, "before", "300", "small"))
    clock.advance(timedelta(seconds=1))
    await put_metrics(caller)
    await caller.send(raw(caller, "after", "200", "small"))
    assert await holder.remaining() == {"token credit": 800}
    await void(caller, "before")
    assert await holder.remaining() == {"token credit": 800}
    await void(caller, "after")
    assert await holder.remaining() == {"token credit": 1000}


async def test_cost_of_a_raw_event_draws_on_no_balance_that_is_for_some_metrics(caller: Caller) -> None:
    holder = Holder(caller)
    await put_metrics(caller)
    await holder.put("for tokens", "10", priority=1, draw_down_metric_ids=["tokens"])
    await holder.put("for all", "10", priority=2)
    await caller.send(raw(caller, "r1", "300", "small", "4"))
    assert await holder.remaining() == {"for tokens": 10, "for all": 6}
    await void(caller, "r1")
    assert await holder.remaining() == {"for tokens": 10, "for all": 10}
