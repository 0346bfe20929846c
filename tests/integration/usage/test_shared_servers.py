"""Tests with the mark `shares_server` use one server and do not see each other."""

from datetime import timedelta

import pytest

from runtime.clock import ManualClock
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.caller import Caller, usage_alert

pytestmark = shares_server

ports: set[int] = set()


@pytest.mark.parametrize("turn", [1, 2, 3])
async def test_each_test_begins_with_an_empty_organization_on_the_shared_server(caller: Caller, turn: int) -> None:
    ports.add(caller.server.port)
    assert len(ports) == 1
    assert await caller.notifications() == []
    await caller.create(usage_alert("10"))
    answer = await caller.send(caller.event("e1", "12"))
    assert (answer.accepted, answer.duplicates, len(answer.transitions)) == (1, 0, 1)
    assert len(await caller.notifications()) == 1


async def test_clock_of_a_shared_server_cannot_be_moved(caller: Caller, clock: ManualClock) -> None:
    before = caller.clock.now()
    with pytest.raises(AssertionError, match="own_server"):
        clock.advance(timedelta(seconds=1))
    with pytest.raises(AssertionError, match="own_server"):
        clock.set(before + timedelta(seconds=1))
    assert caller.clock.now() == before


@own_server
async def test_clock_of_an_own_server_moves_among_tests_that_share_one(caller: Caller, clock: ManualClock) -> None:
    clock.advance(timedelta(days=1))
    assert caller.clock.now() == clock.now()
    assert caller.server.port not in ports
    assert (await caller.send(caller.event("e1", "12"))).accepted == 1
