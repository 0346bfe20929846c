"""What an explanation says about the next event, compared with what the engine does with it, in random situations."""

import os
import random
from collections import Counter
from decimal import Decimal

import pytest

from generated.tidemark.v1 import explanation_pb2
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import Caller
from tests.support.usage.explained_situations import MUCH, TINY, Situation

pytestmark = shares_server

SITUATIONS = 40  # of each story
STORIES = [0, *range(100, 100 + int(os.environ.get("TIDEMARK_TEST_STORIES", "0")))]


async def check(situation: Situation) -> str:
    """Compares one explanation with the engine; returns what was compared."""
    explanation = await situation.explain()
    shown = str(explanation)
    if not explanation.gauges:
        assert await situation.send(MUCH) == [], shown
        return explanation_pb2.ExplanationReason.Name(explanation.reason)
    [gauge] = explanation.gauges
    if not gauge.HasField("next"):
        assert await situation.send(MUCH) == [], shown
        return "nothing more"
    following = gauge.next
    if following.event_count:
        count = int(following.event_count)
        for _ in range(count - 1):
            assert await situation.send(Decimal(1)) == [], shown
        [first, *_] = await situation.send(Decimal(1))
        assert first.level == following.level, shown
        return "events"
    if following.amount == "0" and gauge.awaits_evaluation:
        assert await situation.send(TINY), shown
        return "waiting"
    below = Decimal(following.amount) - TINY
    assert await situation.send(below) == [], shown
    [gauge] = (await situation.explain()).gauges
    assert gauge.next.level == following.level, shown
    [first, *_] = await situation.send(Decimal(gauge.next.amount))
    assert first.level == following.level, shown
    return "amount"


@pytest.mark.parametrize("seed", STORIES)
async def test_the_next_event_notifies_exactly_from_the_amount_that_an_explanation_names(
    caller: Caller, seed: int
) -> None:
    chance = random.Random(seed)
    compared = Counter[str]()
    for number in range(SITUATIONS):
        situation = Situation(caller, number, chance)
        await situation.arrange()
        compared[await check(situation)] += 1
        after = await situation.explain()
        assert after.read_time.seconds, after
    assert compared["amount"] > 3
    assert compared["events"] > 1
    assert len(compared) > 3
