"""Bodies that do not show when their deliveries are claimed: they are looked for again, and cost no attempt."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from notifier import late_bodies
from store.deliveries.claims import Claim, read_late_bodies
from store.postgres.channels import OUTBOX_CHANNEL
from store.postgres.database import Database
from tests.support.faults.conflicts import Conflicts
from tests.support.notifier.house import OFTEN, House, body_of, running_notifier
from tests.support.notifier.receiver import Receiver
from tests.support.waiting import within
from webhooks.deliveries import DeliveryStatus


class Looks:
    """The looks for late bodies; the test waits for their number."""

    def __init__(self) -> None:
        self.number = 0
        self._more = asyncio.Condition()

    async def look(self, connection: AsyncConnection, claims: Collection[Claim]) -> None:
        """One look."""
        await read_late_bodies(connection, claims)
        async with self._more:
            self.number += 1
            self._more.notify_all()

    async def at_least(self, number: int) -> None:
        """Waits until there were so many."""
        async with within(f"{number} looks for late bodies"), self._more:
            await self._more.wait_for(lambda: self.number >= number)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """The looks of notifiers of this process."""
    made = Looks()
    monkeypatch.setattr(late_bodies, "read_late_bodies", made.look)
    return made


@asynccontextmanager
async def late_notifications(house: House, number: int) -> AsyncIterator[list[str]]:
    """Notifications whose rows of the outbox are committed; they themselves are so at the end of the block."""
    async with house.database.transaction() as nodes:
        ids = await house.write(nodes, number, hint=False)
        taken = (await nodes.execute(text("DELETE FROM outbox RETURNING *"))).all()
        async with house.database.transaction() as coordinator:
            for row in taken:
                values = {name: value for name, value in row._mapping.items() if name != "outbox_id"}
                names = ", ".join(values)
                places = ", ".join(f":{name}" for name in values)
                await coordinator.execute(text(f"INSERT INTO outbox ({names}) VALUES ({places})"), values)
            await coordinator.execute(text(f"NOTIFY {OUTBOX_CHANNEL}"))
        yield ids


async def test_a_body_that_shows_later_is_sent_with_the_first_attempt(
    house: House, receiver: Receiver, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_bodies, "LOOKS", 1_000)  # however slow the machine is
    await house.endpoint(receiver.url)
    async with running_notifier(house):
        async with late_notifications(house, 3) as ids:
            await looks.at_least(2)
            assert receiver.arrivals == []
        found = await house.settled(DeliveryStatus.DELIVERED, 3)
    assert {one.attempt_count for one in found} == {1}
    assert sorted(arrival.body for arrival in receiver.arrivals) == sorted(body_of(one).encode() for one in ids)


async def test_a_body_that_does_not_show_is_given_back_without_an_attempt_and_sent_later(
    house: House, receiver: Receiver, looks: Looks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(late_bodies, "LOOKS", 2)
    await house.endpoint(receiver.url)
    async with running_notifier(house, poll_interval=OFTEN):
        async with late_notifications(house, 1):
            await looks.at_least(4)  # given back, and claimed again
            [delivery] = await house.deliveries()
            assert (delivery.status, delivery.attempt_count) == (DeliveryStatus.PENDING, 0)
        [delivery] = await house.settled(DeliveryStatus.DELIVERED, 1)
    assert delivery.attempt_count == 1
    assert len(receiver.arrivals) == 1
    assert "attempt.no_notification" in {record.__dict__.get("action") for record in caplog.records}


async def test_conflicts_in_every_transaction_of_the_notifier_cost_no_attempt(
    house: House, receiver: Receiver, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    conflicts = Conflicts()
    conflicts.install(monkeypatch)
    conflicts.spare(database)
    await house.endpoint(receiver.url)
    conflicts.on = True
    async with running_notifier(house):
        await house.notify(3)
        found = await house.settled(DeliveryStatus.DELIVERED, 3)
    assert [one.attempt_count for one in found] == [1, 1, 1]
    assert len(receiver.arrivals) == 3
    assert {"outbox", "endpoint", "attempt"} <= conflicts.tables
