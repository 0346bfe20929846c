"""Subscribers: each organization has its share of them, and a guaranteed number."""

from typing import cast

import pytest

from server.alerts.subscribers.feeds import GUARANTEED_SUBSCRIBERS, Feeds, Subscriber
from server.calls.errors import ResourceExhausted
from store.postgres.database import Database


def subscribe_as_many(feeds: Feeds, organization_id: int) -> list[Subscriber]:
    """Registers as many subscribers as an organization may have."""
    found: list[Subscriber] = []
    refusal = None
    while refusal is None:
        try:
            found.append(feeds.subscribe(organization_id))
        except ResourceExhausted as error:
            refusal = error
    assert refusal.metadata == {"limit": str(len(found))}
    return found


async def test_an_eleventh_organization_gets_subscribers_when_ten_have_their_maximum() -> None:
    feeds = Feeds(cast(Database, None), max_subscribers=100, organization_subscribers=30)
    taken = [subscribe_as_many(feeds, organization_id) for organization_id in range(10)]
    assert len(taken[0]) == 30
    assert all(len(one) >= GUARANTEED_SUBSCRIBERS for one in taken)
    eleventh = subscribe_as_many(feeds, 11)
    assert len(eleventh) >= GUARANTEED_SUBSCRIBERS
    for one in [*eleventh, *(one for of_one in taken for one in of_one)]:
        one.end()
        one.end()
    assert feeds.subscribers == 0
    assert len(subscribe_as_many(feeds, 1)) == 30
    await feeds.stop()


@pytest.mark.parametrize("limit", [1, 3, GUARANTEED_SUBSCRIBERS])
async def test_a_limit_below_the_guaranteed_number_holds(limit: int) -> None:
    feeds = Feeds(cast(Database, None), organization_subscribers=limit)
    assert len(subscribe_as_many(feeds, 1)) == limit
    await feeds.stop()
