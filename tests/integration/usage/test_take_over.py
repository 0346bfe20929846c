"""The first API key takes over the data of callers without a key: usage counts once and notifies once."""

from datetime import timedelta

import grpc
import pytest

from runtime.clock import ManualClock
from store.identity import keys, organizations
from store.postgres.database import Database
from tests.support.usage.caller import Caller, calling, usage_alert


async def test_first_key_takes_over_the_state_of_callers_without_a_key(
    database_url: str, database: Database, clock: ManualClock
) -> None:
    async with calling(database_url, clock, "default", "") as anonymous:
        anonymous.metadata = ()
        alert = await anonymous.create(usage_alert("10", "20"))
        first = anonymous.event("e-1", "10")
        assert [one.threshold.value for one in (await anonymous.send(first)).transitions] == ["10"]

        async with database.transaction() as connection:
            created = await keys.create_key(connection, "acme-inc", clock.now(), take_over=True)
        owner = Caller(anonymous.server, clock, database_url, "acme-inc", created.key)
        again = await owner.send(first)
        assert (again.accepted, again.duplicates, len(again.transitions)) == (0, 1, 0)
        second = await owner.send(owner.event("e-2", "10"))
        assert [one.threshold.value for one in second.transitions] == ["20"]

        clock.advance(timedelta(seconds=10))  # servers cache for a few seconds that callers need no key
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await anonymous.state(alert.alert_id)
        assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED

        stored = await owner.notifications()
        assert [one.sequence for one in stored] == [1, 2]
        assert len({one.notification_id for one in stored}) == 2
    async with database.transaction() as connection:
        assert await organizations.find(connection, "default") is None
