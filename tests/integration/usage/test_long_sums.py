"""Sums with more digits than an amount may have are exact, and the same wherever they are shown."""

from decimal import Decimal

from evaluator.amounts import exact_arithmetic
from tests.support.usage.caller import Caller, thresholds, usage_alert, values

LONGEST = "9" * 20 + "." + "9" * 18
WHOLE = "9" * 38
TINY = "0." + "0" * 17 + "3"


async def test_sum_with_more_digits_than_an_amount_is_exact(caller: Caller) -> None:
    with exact_arithmetic():
        expected = 2 * Decimal(WHOLE) + Decimal(LONGEST) + Decimal(TINY)
    watched = await caller.create(usage_alert(thresholds=thresholds(WHOLE)))
    sent = [caller.event(f"e{number}", text) for number, text in enumerate((WHOLE, LONGEST, WHOLE, TINY))]
    answer = await caller.send(*sent, gauges=True)
    assert values(answer.gauges) == {("acme", "calls"): expected}
    assert [(one.event_id, one.value) for one in answer.transitions] == [("e0", WHOLE)]
    later = await caller.create(usage_alert(thresholds=thresholds(WHOLE), groups=[]))
    fresh = await caller.create(usage_alert(thresholds=thresholds("1", WHOLE)))
    for alert in (watched, later, fresh):
        state = await caller.state(alert.alert_id)
        assert {Decimal(gauge.gauge.value) for gauge in state.gauges} == {expected}
    bodies = [one.body["data"] for one in await caller.notifications()]  # each conforms to its schema
    assert {Decimal(body["value"]) for body in bodies} == {Decimal(WHOLE), expected}
    # Corrections subtract exactly.
    back = await caller.send(caller.event("back", "-" + WHOLE), caller.event("again", "-" + WHOLE), gauges=True)
    with exact_arithmetic():
        assert values(back.gauges) == {("acme", "calls"): Decimal(LONGEST) + Decimal(TINY)}
