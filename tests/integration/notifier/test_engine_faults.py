"""Faults that a running notifier meets: back-pressure in each form, a lost LISTEN, a lost key; and its port."""

import asyncio
import email.utils
from datetime import UTC, datetime, timedelta

import aiohttp
import psycopg
import pytest
from sqlalchemy import Engine, event, make_url, select, text

from notifier.metrics import Metrics
from runtime.monitoring.port import MonitoredProcess, monitoring_port
from store.tables.webhooks import endpoint
from tests.support.notifier.endpoint_rows import change, row_of
from tests.support.notifier.house import OFTEN, House, configuration, running_notifier
from tests.support.notifier.receiver import Receiver, hang, status
from tests.support.server.sharing import own_database
from webhooks.deliveries import DeliveryStatus
from webhooks.health import FIRST_THROTTLE
from webhooks.secret_box import SecretBox, credentials_context

pytestmark = own_database


def in_an_hour() -> str:
    return email.utils.format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_retry_after_in_both_forms_makes_the_endpoint_wait(
    house: House, receiver: Receiver, code: int, form: str
) -> None:
    created = await house.endpoint(receiver.url)
    receiver.answer(status(code, headers={"Retry-After": "3600" if form == "seconds" else in_an_hour()}))
    async with running_notifier(house, poll_interval=OFTEN) as polls:
        await house.notify()
        await house.attempted(1)
        await house.notify(3)
        await house.outbox_emptied()
        await polls.one_more()
        assert set((await house.in_flight()).values()) == {0}, "a poll found what is not due"
        assert len(receiver.arrivals) == 1
        row = await row_of(house, created.endpoint.endpoint_id)
        wait = row.not_before - datetime.now(UTC)
        assert timedelta(minutes=55) < wait <= timedelta(hours=1, seconds=1)
        await change(house, created.endpoint.endpoint_id, not_before="now()")
        await house.settled(DeliveryStatus.DELIVERED, 4)
    assert len(receiver.arrivals) == 5


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize("asked", ["0", "-1", "Sun, 15 Mar 2020 12:00:00 GMT", "now"])
async def test_a_receiver_that_asks_for_no_wait_gets_the_pauses_of_the_notifier(
    house: House, receiver: Receiver, code: int, asked: str
) -> None:
    created = await house.endpoint(receiver.url)
    receiver.always_answer(status(code, headers={"Retry-After": asked}))
    async with running_notifier(house):
        await house.notify()
        [delivery] = await house.attempted(1)
        row = await row_of(house, created.endpoint.endpoint_id)
        [attempt] = await house.attempts(delivery.delivery_id)
        assert row.not_before - attempt.start_time >= FIRST_THROTTLE
        # As if that pause had passed: the next one is twice as long.
        await change(house, created.endpoint.endpoint_id, not_before="now()")
        [delivery] = await house.attempted(2)
        row = await row_of(house, created.endpoint.endpoint_id)
        [_, attempt] = await house.attempts(delivery.delivery_id)
        assert row.not_before - attempt.start_time >= 2 * FIRST_THROTTLE
    assert len(receiver.arrivals) == 2


async def test_back_pressure_without_a_date_makes_a_short_pause_and_nothing_is_lost(
    house: House, receiver: Receiver
) -> None:
    created = await house.endpoint(receiver.url)
    receiver.answer(status(503))
    async with running_notifier(house):
        await house.notify()
        await house.attempted(1)
        row = await row_of(house, created.endpoint.endpoint_id)
        assert row.not_before is not None
        assert row.throttle_count == 1
        await change(house, created.endpoint.endpoint_id, not_before="now()")
        [done] = await house.settled(DeliveryStatus.DELIVERED, 1)
    assert done.attempt_count == 2
    row = await row_of(house, created.endpoint.endpoint_id)
    assert (row.throttle_count, row.failing_since) == (0, None)


async def test_a_receiver_that_only_fails_is_left_alone_by_its_breaker(house: House, receiver: Receiver) -> None:
    created = await house.endpoint(receiver.url)
    receiver.always_answer(status(500))
    async with running_notifier(house, poll_interval=OFTEN) as polls:
        await house.notify(40)
        async with asyncio.timeout(30):
            while True:
                if (await row_of(house, created.endpoint.endpoint_id)).breaker_state == "OPEN":
                    break
                await asyncio.sleep(0.02)
        await polls.one_more()
        tried = len(receiver.arrivals)
        assert tried < 20, "what is open is not tried"
        receiver.always_answer(status(204))
        await change(house, created.endpoint.endpoint_id, breaker_until="now()")
        await house.make_due()
        await house.settled(DeliveryStatus.DELIVERED, 40)
    row = await row_of(house, created.endpoint.endpoint_id)
    assert (row.breaker_state, row.breaker_failures, row.in_flight) == ("CLOSED", 0, 0)


async def test_a_killed_listen_connection_is_replaced_and_nothing_waits_for_it(
    house: House, receiver: Receiver
) -> None:
    await house.endpoint(receiver.url)
    url = make_url(house.database.url)
    administrator = url.set(database="postgres").render_as_string(hide_password=False)
    async with (
        running_notifier(house),
        await psycopg.AsyncConnection.connect(administrator, autocommit=True) as admin,
    ):
        await house.notify()
        await house.settled(DeliveryStatus.DELIVERED, 1)
        killed = await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = %s AND application_name ~ '^tidemark listen'",
            [url.database],
        )
        assert await killed.fetchall() == [(True,)]
        await house.notify()
        await house.settled(DeliveryStatus.DELIVERED, 2)
        async with asyncio.timeout(30):
            while True:
                if await listeners(admin, url.database):
                    break
                await asyncio.sleep(0.1)


async def listeners(admin: psycopg.AsyncConnection[tuple[object, ...]], database: str | None) -> list[object]:
    found = await admin.execute(
        "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND application_name ~ '^tidemark listen'", [database]
    )
    return list(await found.fetchall())


async def test_a_transaction_held_open_elsewhere_stops_nothing(house: House, receiver: Receiver) -> None:
    await house.endpoint(receiver.url)
    async with house.database.transaction() as elsewhere:
        await elsewhere.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        await elsewhere.execute(select(endpoint.c.endpoint_id))
        async with running_notifier(house):
            await house.notify(20)
            await house.settled(DeliveryStatus.DELIVERED, 20)
    assert len(set(receiver.ids())) == 20


async def test_own_headers_and_credentials_are_sent_and_reserved_ones_are_not(
    house: House, receiver: Receiver
) -> None:
    created = await house.endpoint(receiver.url)
    endpoint_id = created.endpoint.endpoint_id
    settings = configuration(SECRET_KEYS="test:dGlkZW1hcmsgdGVzdHMgYW5kIG5vdGhpbmcgZWxzZSE=")
    box = SecretBox(settings.secret_keys)
    await change(
        house,
        endpoint_id,
        headers={"X-Team": "billing", "Host": "evil.example.com", "webhook-id": "forged", "authorization": "none"},
        credentials=box.seal(b"Bearer token-1", credentials_context(house.organization_id, endpoint_id)),
        credentials_key_id=box.key_id,
    )
    async with running_notifier(house, settings):
        [notification_id] = await house.notify()
        await house.settled(DeliveryStatus.DELIVERED, 1)
    [arrival] = receiver.arrivals
    assert arrival.headers["x-team"] == "billing"
    assert arrival.headers["authorization"] == "Bearer token-1"
    assert arrival.headers["host"].startswith("127.0.0.1:")
    assert arrival.webhook_id == notification_id


async def test_without_the_master_key_nothing_is_sent_and_no_attempt_is_counted(
    house: House, receiver: Receiver
) -> None:
    created = await house.endpoint(receiver.url)
    endpoint_id = created.endpoint.endpoint_id
    foreign = SecretBox([("lost", bytes(32))])
    await change(
        house,
        endpoint_id,
        credentials=foreign.seal(b"Bearer x", credentials_context(house.organization_id, endpoint_id)),
        credentials_key_id="lost",
    )
    async with running_notifier(house):
        await house.notify()
        async with asyncio.timeout(30):
            while True:
                deliveries = await house.deliveries()
                if deliveries and (wait := deliveries[0].next_attempt_time) is not None and wait > datetime.now(UTC):
                    break
                await asyncio.sleep(0.02)
    assert receiver.arrivals == []
    assert deliveries[0].attempt_count == 0


async def test_fifty_in_flight_end_within_the_drain(house: House, receiver: Receiver) -> None:
    released = asyncio.Event()
    receiver.always_answer(hang(released))
    await house.endpoint(receiver.url)
    await change(house, max_in_flight=50)
    async with running_notifier(house, configuration(DRAIN_TIMEOUT_SECONDS="20")):
        await house.notify(50)
        await receiver.arrived(50)
        asyncio.get_running_loop().call_later(0.2, released.set)
    assert {item.status for item in await house.deliveries()} == {DeliveryStatus.DELIVERED}
    assert set((await house.in_flight()).values()) == {0}


async def answered(session: aiohttp.ClientSession, url: str, code: int) -> None:
    """Waits until the address answers with that status."""
    async with asyncio.timeout(60):
        while True:
            async with session.get(url) as response:
                if response.status == code:
                    return
            await asyncio.sleep(0.02)


async def test_the_monitoring_port_shows_liveness_and_metrics(house: House, receiver: Receiver) -> None:
    await house.endpoint(receiver.url)
    receiver.answer(status(500))
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    base = f"http://127.0.0.1:{port}"
    async with (
        running_notifier(house, configuration(NOTIFIER_LISTEN=f"127.0.0.1:{port}")),
        aiohttp.ClientSession() as session,
    ):
        await house.notify()
        await house.attempted(1)
        for path in ("/healthz", "/readyz"):
            await answered(session, base + path, 200)
        async with session.get(base + "/metrics") as response:
            assert response.headers["Content-Type"].startswith("text/plain")
            lines = (await response.text()).splitlines()
    assert 'tidemark_notifier_attempts_total{outcome="server_error"} 1.0' in lines
    assert "tidemark_notifier_attempt_duration_seconds_count 1.0" in lines
    assert "tidemark_notifier_fan_out_deliveries_total 1.0" in lines
    for line in lines:
        assert line.startswith("# ") or len(line.split(" ")) == 2


async def test_a_notifier_that_is_not_ready_is_alive() -> None:
    async with (
        monitoring_port([("127.0.0.1", 0)], MonitoredProcess(Metrics().instruments.registry, lambda: False)) as port,
        aiohttp.ClientSession() as session,
    ):
        for path, code in (("/healthz", 200), ("/readyz", 503)):
            async with session.get(f"http://127.0.0.1:{port}{path}") as response:
                assert response.status == code


async def test_an_idle_notifier_asks_at_most_twice_a_second(house: House) -> None:
    statements = 0

    def count(*_: object) -> None:
        nonlocal statements
        statements += 1

    await house.endpoint("https://example.com/hook")
    async with running_notifier(house) as polls:
        await polls.one_more()  # the start is over, with the days that it makes
        event.listen(Engine, "before_cursor_execute", count)
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(4.0)
        seconds = asyncio.get_running_loop().time() - began
        event.remove(Engine, "before_cursor_execute", count)
    assert 0 < statements <= 2 * seconds
