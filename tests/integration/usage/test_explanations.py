"""Explanations after usage: new groups, voids, backfills that wait, other servers, and very many events."""

import pytest

from engine.limits import EngineLimits
from generated.tidemark.v1 import alert_service_pb2, explanation_pb2, usage_void_pb2
from store.usage import event_samples
from tests.support.usage.caller import Caller, beside, usage_alert
from tests.support.usage.held_backfills import HeldBackfills

BY_SEAT = [("seat", None)]
low_limit = pytest.mark.parametrize("engine_limits", [EngineLimits(groups=2)], ids=[pytest.HIDDEN_PARAM])


async def explain(caller: Caller, alert_id: str, **group: str) -> explanation_pb2.CustomerAlertExplanation:
    """Explains an alert for acme."""
    request = alert_service_pb2.ExplainCustomerAlertRequest(alert_id=alert_id, customer_id="acme")
    for key, value in group.items():
        request.group.add(key=key, value=value)
    answer = await caller.alerts.ExplainCustomerAlert(request, metadata=caller.metadata)
    return answer.explanation


def reason(number: explanation_pb2.ExplanationReason.ValueType) -> str:
    return explanation_pb2.ExplanationReason.Name(number).removeprefix("EXPLANATION_REASON_")


@low_limit
async def test_a_group_beyond_the_limit_is_explained_before_and_after_it_comes(caller: Caller) -> None:
    alert = await caller.create(usage_alert("10", groups=BY_SEAT))
    await caller.send(caller.event("1", seat="a"), caller.event("2", seat="b"))
    known, new = await explain(caller, alert.alert_id, seat="a"), await explain(caller, alert.alert_id, seat="c")
    assert (reason(known.reason), known.group_count, known.group_limit) == ("NOT_REACHED", 2, 2)
    assert reason(new.reason) == "GROUP_LIMIT"
    assert not new.gauges[0].HasField("next")
    await caller.send(caller.event("3", "50", seat="c"))
    after = await explain(caller, alert.alert_id)
    assert reason(after.reason) == "GROUP_LIMIT"
    assert [one.notification.WhichOneof("detail") for one in after.notifications] == ["alert_disabled"]


async def test_voided_events_are_counted_as_such(caller: Caller) -> None:
    alert = await caller.create(usage_alert("10"))
    await caller.send(caller.event("1", "4"), caller.event("2", "5"))
    voided = alert_service_pb2.VoidUsageEventsRequest(
        events=[usage_void_pb2.UsageEventKey(customer_id="acme", event_id="2")]
    )
    await caller.alerts.VoidUsageEvents(voided, metadata=caller.metadata)
    found = await explain(caller, alert.alert_id)
    assert (found.counted.event_count, found.counted.voided_count, found.gauges[0].next.amount) == (1, 1, "6")


async def test_an_alert_that_waits_for_its_backfill_is_not_evaluated_yet(
    caller: Caller, held_backfills: HeldBackfills
) -> None:
    await caller.send(caller.event("1", "12"))
    alert = await caller.create_only(usage_alert("10"))
    waiting = await explain(caller, alert.alert_id)
    assert (reason(waiting.reason), waiting.gauges[0].awaits_evaluation) == ("NOT_EVALUATED_YET", True)
    assert (waiting.gauges[0].gauge.value, waiting.gauges[0].next.amount) == ("12", "0")
    held_backfills.release()
    await caller.backfilled(alert.alert_id)
    assert reason((await explain(caller, alert.alert_id)).reason) == "NOTIFIED"


async def test_a_value_that_is_not_counted_yet_is_left_out_where_the_customer_has_many_events(
    caller: Caller, held_backfills: HeldBackfills, monkeypatch: pytest.MonkeyPatch
) -> None:
    await caller.send(*(caller.event(f"{number}", "1") for number in range(12)))
    alert = await caller.create_only(usage_alert("10"))
    monkeypatch.setattr(event_samples, "MAX_EXAMINED", 5)
    found = await explain(caller, alert.alert_id)
    assert (found.counted.is_complete, found.counted.event_count) == (False, 5)
    assert (found.gauges[0].gauge.value, found.gauges[0].awaits_evaluation) == ("", True)
    assert reason(found.reason) == "NOT_EVALUATED_YET"
    held_backfills.release()
    await caller.backfilled(alert.alert_id)
    after = await explain(caller, alert.alert_id)
    assert (reason(after.reason), after.gauges[0].gauge.value) == ("NOTIFIED", "12")


async def test_every_server_explains_alike(caller: Caller) -> None:
    alert = await caller.create(usage_alert("10"))
    await caller.send(caller.event("1", "4"))
    async with beside(caller) as other:
        await other.send(other.event("2", "2"))
        assert await explain(other, alert.alert_id) == await explain(caller, alert.alert_id)
        assert (await explain(other, alert.alert_id)).gauges[0].next.amount == "4"
