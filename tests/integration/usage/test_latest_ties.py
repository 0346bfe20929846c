"""LATEST over events of one event_time: the greatest event_id counts, on every path and in every order."""

import itertools
from datetime import timedelta

import pytest

from generated.tidemark.v1 import (
    metric_pb2,
    usage_pb2,
)
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import BOTH, Caller, beside, shortened, usage_alert, values

pytestmark = shares_server

LATEST = metric_pb2.AGGREGATION_LATEST
_numbers = itertools.count()
QUANTITIES = ("9", "3", "5", "1", "7", "2")


def tied(caller: Caller, quantities: tuple[str, ...] = QUANTITIES, *names: str) -> list[usage_pb2.UsageEvent]:
    """Events of one time; the one with the greatest of `names` counts."""
    names = names or tuple(f"e{number}" for number in range(len(quantities)))
    return [caller.event(name, quantity, metric="seats") for name, quantity in zip(names, quantities, strict=True)]


async def watched(caller: Caller, level: str = "1000") -> None:
    """A metric that shows the latest value, and an alert that watches it."""
    await caller.put_metric("seats", LATEST)
    await caller.create(usage_alert(level, metric="seats"))


async def shown(caller: Caller) -> str:
    """The value of the gauge in the answer to an event that is older than all others."""
    at = caller.clock.now() - timedelta(hours=2)
    event = caller.event(f"probe{next(_numbers)}", "-1", metric="seats", at=at)
    return str(values((await caller.send(event, gauges=True)).gauges)["acme", "seats"])


async def test_recounted_gauge_equals_a_watched_gauge_after_a_tie(caller: Caller) -> None:
    await caller.put_metric("seats", LATEST)
    await caller.send(*tied(caller, QUANTITIES, "f", "b", "e", "c", "d", "a"))
    await watched(caller)
    assert await shown(caller) == "9"


@pytest.mark.parametrize("split", range(7))
async def test_tie_has_the_same_result_in_one_commit_and_in_two(caller: Caller, split: int) -> None:
    await watched(caller)
    events = tied(caller, QUANTITIES, "a", "b", "f", "c", "d", "e")
    for part in (events[:split], events[split:]):
        if part:
            await caller.send(*part)
    assert await shown(caller) == "5"


async def test_tie_has_the_same_result_on_two_servers(caller: Caller) -> None:
    await watched(caller)
    events = tied(caller, QUANTITIES, "a", "b", "c", "f", "d", "e")
    async with beside(caller) as other:
        for number, event in enumerate(events):
            await (caller, other)[number % 2].send(event)
        assert await shown(other) == "1"
    assert await shown(caller) == "1"


async def test_event_ids_of_a_tie_are_compared_by_code_point(caller: Caller) -> None:
    await watched(caller)
    names = ("Z", "a", "é", "𝕏", "\uffee", "z")  # the order of no language
    for event in tied(caller, QUANTITIES, *names):
        await caller.send(event)
    assert await shown(caller) == "1"
    await caller.create(usage_alert("2000", metric="seats", groups=[]))
    assert await shown(caller) == "1"


async def test_event_that_loses_a_tie_reaches_no_threshold(caller: Caller) -> None:
    await caller.put_metric("seats", LATEST)
    alert = usage_alert("5", metric="seats")
    alert.thresholds[0].notify_on.extend(BOTH)
    await caller.create(alert)
    answer = await caller.send(*tied(caller, ("9", "3", "1"), "b", "a", "c"))
    assert [(one.kind, one.event_id) for one in shortened(answer.transitions)] == [
        ("REACHED", "b"),
        ("RESOLVED", "c"),
    ]


async def test_gauge_of_an_earlier_version_is_recounted_at_a_tie(caller: Caller) -> None:
    await watched(caller)
    await caller.send(*tied(caller, ("9", "3"), "b", "a"))
    # An earlier version stored the time without the event id, and did not decide ties.
    assert await caller.rows(
        "UPDATE gauge SET value = 3, latest_event = '2026-01-01T00:00:00+00:00 x'"
        " WHERE organization_id = %(organization_id)s RETURNING 1"
    )
    await caller.send(*tied(caller, ("7",), "aa"))
    assert await shown(caller) == "9"
