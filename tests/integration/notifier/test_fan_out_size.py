"""How much one fan-out makes: about FAN_OUT_DELIVERIES at most, from the first one on, and the rest follows."""

import pytest

from notifier.worker import FAN_OUT_DELIVERIES, FAN_OUT_LIMIT
from store.deliveries import outbox
from store.deliveries.outbox import FanOut
from store.postgres.database import Connection
from tests.support.notifier.endpoint_rows import change
from tests.support.notifier.house import House, running_notifier

ROWS = 500


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[FanOut]:
    """What each fan-out of the notifier did, in turn."""
    seen: list[FanOut] = []
    real = outbox.fan_out

    async def watched(connection: Connection, limit: int) -> FanOut:
        done = await real(connection, limit)
        if done.taken:
            seen.append(done)
        return done

    monkeypatch.setattr(outbox, "fan_out", watched)
    return seen


async def endpoints(house: House, number: int) -> None:
    """Adds endpoints that want everything, and lets nothing be attempted."""
    for index in range(number):
        await house.endpoint(f"https://example.com/{index}")
    await change(house, not_before="now() + interval '1 hour'")


async def test_where_many_endpoints_want_everything_a_fan_out_takes_few_rows_and_the_rest_follows(
    house: House, made: list[FanOut]
) -> None:
    await endpoints(house, 20)
    ids = await house.notify(ROWS)
    async with running_notifier(house):
        await house.outbox_emptied()
    assert sum(one.taken for one in made) == ROWS
    assert max(one.created for one in made) == FAN_OUT_DELIVERIES, "as much as it may, and no more"
    pairs = {(item.notification_id, item.endpoint_id) for item in await house.deliveries()}
    assert len(pairs) == ROWS * 20
    assert {notification_id for notification_id, _ in pairs} == set(ids)


async def test_where_one_endpoint_wants_everything_a_fan_out_takes_as_many_rows_as_it_may(
    house: House, made: list[FanOut]
) -> None:
    await endpoints(house, 1)
    await house.notify(ROWS)
    async with running_notifier(house):
        await house.outbox_emptied()
    assert sum(one.taken for one in made) == ROWS
    assert max(one.taken for one in made) == FAN_OUT_LIMIT


async def test_a_fan_out_takes_fewer_rows_after_endpoints_were_added(house: House, made: list[FanOut]) -> None:
    await endpoints(house, 1)
    async with running_notifier(house):
        await house.notify(ROWS)
        await house.outbox_emptied()
        before = len(made)
        await endpoints(house, 29)
        await house.notify(ROWS)
        await house.outbox_emptied()
    after = made[before:]
    assert after[0].taken == FAN_OUT_LIMIT, "it cannot know yet"
    assert max(one.created for one in after[1:]) == FAN_OUT_DELIVERIES
    assert sum(one.taken for one in after) == ROWS
    assert sum(one.created for one in made) == len(await house.deliveries()) == ROWS * 31
