"""A notification's way from the outbox to a receiver, by a whole notifier."""

import json
from datetime import timedelta

import pytest
from sqlalchemy import text

from runtime.clock import ManualClock
from tests.support.notifier.house import House, body_of, configuration, running_notifier
from tests.support.notifier.receiver import Receiver, status
from webhooks.deliveries import AttemptOutcome, DeliveryStatus


async def test_a_notification_arrives_signed_and_a_foreign_verifier_accepts_it(
    house: House, receiver: Receiver
) -> None:
    created = await house.endpoint(receiver.url)
    async with running_notifier(house):
        [notification_id] = await house.notify()
        [arrival] = await receiver.arrived(1)
        [delivery] = await house.settled(DeliveryStatus.DELIVERED, 1)
    assert arrival.body == body_of(notification_id).encode()
    assert arrival.verify(created.secret) == json.loads(arrival.body)
    assert arrival.webhook_id == notification_id
    assert arrival.headers["content-type"] == "application/json"
    assert delivery.notification_id == notification_id
    assert delivery.attempt_count == 1
    assert delivery.next_attempt_time is None
    assert delivery.finish_time is not None
    [attempt] = await house.attempts(delivery.delivery_id)
    assert (attempt.attempt_number, attempt.outcome, attempt.http_status) == (1, AttemptOutcome.DELIVERED, 204)
    assert attempt.error == ""
    assert attempt.duration > timedelta(0)


async def test_a_failed_attempt_is_tried_again_under_the_same_id_and_signed_anew(
    house: House, receiver: Receiver
) -> None:
    house.clock = clock = ManualClock(house.clock.now())
    created = await house.endpoint(receiver.url)
    receiver.answer(status(500, "out of order"))
    async with running_notifier(house):
        [notification_id] = await house.notify()
        [delivery] = await house.attempted(1)
        assert delivery.status is DeliveryStatus.PENDING
        assert delivery.next_attempt_time is not None
        wait = delivery.next_attempt_time - delivery.create_time
        assert timedelta(seconds=5) <= wait <= timedelta(seconds=20)
        clock.advance(timedelta(seconds=1))  # the timestamp is in whole seconds, and the second one shall differ
        await house.make_due()
        await house.settled(DeliveryStatus.DELIVERED, 1)
    first, second = receiver.arrivals
    assert first.webhook_id == second.webhook_id == notification_id
    assert first.body == second.body
    assert first.headers["webhook-timestamp"] != second.headers["webhook-timestamp"]
    for arrival in (first, second):
        arrival.verify(created.secret)
    attempts = await house.attempts(delivery.delivery_id)
    assert [attempt.outcome for attempt in attempts] == [AttemptOutcome.SERVER_ERROR, AttemptOutcome.DELIVERED]
    assert attempts[0].response_excerpt == "out of order"
    assert attempts[0].error == "the receiver answered 500"


async def test_the_receivers_retry_after_lengthens_the_wait(house: House, receiver: Receiver) -> None:
    await house.endpoint(receiver.url)
    receiver.answer(status(500, headers={"Retry-After": "3600"}))
    async with running_notifier(house):
        await house.notify()
        [delivery] = await house.attempted(1)
    assert delivery.next_attempt_time is not None
    wait = delivery.next_attempt_time - delivery.create_time
    assert timedelta(hours=1) <= wait <= timedelta(hours=1, minutes=1)


async def test_each_endpoint_gets_the_event_types_it_asked_for(house: House, receiver: Receiver) -> None:
    await house.endpoint(receiver.url)
    await house.endpoint(receiver.url.replace("/hook", "/resolved"), ("alert.resolved",))
    await house.endpoint(receiver.url.replace("/hook", "/both"), ("alert.resolved", "alert.reached"))
    async with running_notifier(house):
        [reached] = await house.notify()
        [resolved] = await house.notify(event_type="alert.resolved")
        await house.settled(DeliveryStatus.DELIVERED, 5)
    assert sorted(receiver.ids("/hook")) == [reached, resolved]
    assert receiver.ids("/resolved") == [resolved]
    assert sorted(receiver.ids("/both")) == [reached, resolved]


async def test_an_organization_gets_nothing_of_another(house: House, receiver: Receiver) -> None:
    other = await House.build(house.database, house.clock, "other")
    await house.endpoint(receiver.url)
    await other.endpoint(receiver.url.replace("/hook", "/other"))
    async with running_notifier(house):
        [ours] = await house.notify()
        await other.notify()
        [theirs] = await other.notify()
        await house.settled(DeliveryStatus.DELIVERED, 1)
        await other.settled(DeliveryStatus.DELIVERED, 2)
    assert receiver.ids("/hook") == [ours]
    assert theirs in receiver.ids("/other")
    assert len(await house.deliveries()) == 1


async def test_without_endpoints_the_outbox_is_emptied(house: House) -> None:
    async with running_notifier(house):
        await house.notify(3)
        await house.outbox_emptied()
    assert await house.deliveries() == []


async def test_a_row_is_found_by_polling_when_no_hint_came(house: House, receiver: Receiver) -> None:
    await house.endpoint(receiver.url)
    async with running_notifier(house):
        await house.notify()
        await receiver.arrived(1)
        [silent] = await house.notify(hint=False)
        await receiver.arrived(2)
    assert receiver.ids()[1] == silent


async def test_work_goes_on_when_the_listening_connection_is_killed(house: House, receiver: Receiver) -> None:
    await house.endpoint(receiver.url)
    async with running_notifier(house):
        await house.notify()
        await receiver.arrived(1)
        async with house.database.transaction() as connection:
            killed = await connection.scalars(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name ~ '^tidemark listen'"
                )
            )
            assert killed.all() == [True]
        await house.notify()
        await receiver.arrived(2)


async def test_a_row_committed_late_is_not_passed_over(house: House, receiver: Receiver) -> None:
    await house.endpoint(receiver.url)
    async with running_notifier(house):
        async with house.database.transaction() as late:
            [first] = await house.write(late)
            [second] = await house.notify()  # has the higher outbox_id and is committed before
            await house.settled(DeliveryStatus.DELIVERED, 1)
            assert receiver.ids() == [second]
        await house.settled(DeliveryStatus.DELIVERED, 2)
    assert receiver.ids() == [second, first]


async def test_a_private_address_is_refused_at_the_dial(house: House, receiver: Receiver) -> None:
    # As if it had been saved by a name that leads elsewhere by now.
    await house.endpoint(receiver.url)
    async with running_notifier(house, configuration(WEBHOOK_ALLOW_CIDRS="10.9.0.0/16")):
        await house.notify()
        [delivery] = await house.attempted(1)
    assert receiver.arrivals == []
    assert delivery.status is DeliveryStatus.PENDING
    [attempt] = await house.attempts(delivery.delivery_id)
    assert attempt.outcome is AttemptOutcome.ADDRESS_REFUSED
    assert attempt.error == "127.0.0.1 is not a public address (loopback)"
    assert (attempt.http_status, attempt.response_excerpt) == (None, "")


async def test_gone_disables_the_endpoint_and_cancels_what_waits(house: House, receiver: Receiver) -> None:
    await house.endpoint(receiver.url)
    other = await house.endpoint(receiver.url.replace("/hook", "/other"))
    receiver.always_answer(status(500))
    async with running_notifier(house):
        await house.notify(2)
        await house.attempted(1)
        receiver.always_answer(status(410))
        await house.notify()
        await receiver.arrived(6)
        await house.settled(DeliveryStatus.FAILED, 2)
        await house.settled(DeliveryStatus.CANCELLED, 4)
        before = len(receiver.arrivals)
        await house.notify()
        await house.outbox_emptied()
    assert len(receiver.arrivals) == before
    assert len(await house.deliveries()) == 6
    assert set((await house.in_flight()).values()) == {0}
    assert other.endpoint.endpoint_id in await house.in_flight()


async def test_secrets_appear_in_no_log_line(
    house: House, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    created = await house.endpoint(receiver.url + "?token=swordfish")
    receiver.answer(status(500))
    async with running_notifier(house):
        await house.notify()
        await house.attempted(1)
        await house.make_due()
        await house.settled(DeliveryStatus.DELIVERED, 1)
    lines = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "attempt 1: server_error" in lines
    assert created.secret not in lines
    assert created.secret.removeprefix("whsec_") not in lines
    assert "swordfish" not in lines
