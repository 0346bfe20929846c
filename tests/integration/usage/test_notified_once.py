"""A reached threshold notifies once, however long it stays reached and however many servers evaluate it."""

import asyncio

from google.protobuf.field_mask_pb2 import FieldMask

from generated.tidemark.v1 import alert_pb2, alert_service_pb2, threshold_pb2
from tests.support.usage.caller import Caller, beside, thresholds, usage_alert


async def test_value_that_stays_above_a_threshold_notifies_once(caller: Caller) -> None:
    alert = await caller.create(usage_alert("10"))
    assert len((await caller.send(caller.event("first", "25"))).transitions) == 1
    async with beside(caller) as other:
        for number in range(30):
            sender = other if number % 2 else caller
            events = [sender.event(f"e{number}-{place}", "0.5") for place in range(5)]
            assert not (await sender.send(*events)).transitions
            if number % 10 == 0:  # A changed alert makes every gauge due for evaluation.
                edited = alert_pb2.Alert(alert_id=alert.alert_id, display_name=f"edited {number}")
                request = alert_service_pb2.UpdateAlertRequest(
                    alert=edited, update_mask=FieldMask(paths=["display_name"])
                )
                await caller.alerts.UpdateAlert(request, metadata=caller.metadata)
                await caller.backfilled(alert.alert_id)
    assert [one.sequence for one in await caller.notifications()] == [1]


async def test_two_servers_that_evaluate_one_transition_record_it_once(caller: Caller) -> None:
    await caller.create(
        usage_alert(thresholds=[*thresholds("10", "20"), threshold_pb2.Threshold(recurring_step="10")])
    )
    async with beside(caller) as other:
        answers = await asyncio.gather(
            *(
                sender.send(sender.event(f"{name}-{number}"))
                for number in range(30)
                for name, sender in (("a", caller), ("b", other))
            )
        )
    levels = ["10", "20", "30", "40", "50", "60"]
    found = [one for answer in answers for one in answer.transitions]
    assert sorted(one.level for one in found) == levels
    assert len({one.event_id for one in found}) == len(levels)
    stored = await caller.notifications()
    assert sorted(crossing.level for one in stored for crossing in one.transitions) == levels
    assert sorted(one.sequence for one in stored) == list(range(1, len(stored) + 1))
