"""Results that the database refuses: tried alone three times, and no burden for the others."""

import asyncio

from sqlalchemy import text

from notifier.recorder import TRIES_ALONE
from tests.support.notifier.house import House, running_notifier
from tests.support.notifier.receiver import Receiver, status
from tests.support.server.sharing import own_database
from webhooks.deliveries import AttemptOutcome, DeliveryStatus

pytestmark = own_database

# A sequence is not rolled back with the transaction that is refused, so it counts the tries.
REFUSING = (
    "CREATE SEQUENCE tried",
    """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF nextval('tried') <= {number} THEN
            RAISE EXCEPTION 'refused';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER refusing BEFORE INSERT ON attempt
    FOR EACH ROW WHEN (NEW.http_status = 500) EXECUTE FUNCTION refuse()
    """,
)


async def refuse(house: House, number: int) -> None:
    """Lets the database refuse the results of answers 500 that many times."""
    async with house.database.transaction() as connection:
        for statement in REFUSING:
            await connection.execute(text(statement.replace("{number}", str(number))))


async def tried(house: House) -> int:
    async with house.database.transaction() as connection:
        number: int = await connection.scalar(
            text("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM tried")
        )
        return number


async def test_a_result_refused_with_its_batch_and_twice_alone_is_recorded(house: House, receiver: Receiver) -> None:
    await refuse(house, 1 + TRIES_ALONE - 1)
    await house.endpoint(receiver.url)
    receiver.answer(status(500))
    async with running_notifier(house):
        await house.notify()
        [pending] = await house.attempted(1)
    assert await tried(house) == 1 + TRIES_ALONE
    assert pending.status is DeliveryStatus.PENDING
    assert pending.next_attempt_time is not None, "the schedule goes on"
    assert [made.outcome for made in await house.attempts(pending.delivery_id)] == [AttemptOutcome.SERVER_ERROR]
    assert len(receiver.arrivals) == 1, "the result was tried again, the receiver was not"
    assert set((await house.in_flight()).values()) == {0}


async def test_a_result_that_is_always_refused_delays_no_other_and_is_attempted_when_its_lease_ends(
    house: House, receiver: Receiver
) -> None:
    await refuse(house, 1 + TRIES_ALONE)
    await house.endpoint(receiver.url)
    receiver.answer(status(500))
    async with running_notifier(house):
        await house.notify(8)
        others = await house.settled(DeliveryStatus.DELIVERED, 7)
        async with asyncio.timeout(30):
            while True:
                if await tried(house) >= 1 + TRIES_ALONE:
                    break
                await asyncio.sleep(0.02)
        [refused] = [item for item in await house.deliveries() if item.status is DeliveryStatus.PENDING]
        assert (refused.attempt_count, refused.next_attempt_time) == (0, None), "it is leased still"
        await house.expire_leases()
        await house.settled(DeliveryStatus.DELIVERED, 8)
    assert await tried(house) == 1 + TRIES_ALONE, "no try more"
    assert refused.delivery_id not in {item.delivery_id for item in others}
    assert receiver.ids().count(refused.notification_id) == 2
    assert len(receiver.arrivals) == 9
    assert set((await house.in_flight()).values()) == {0}
