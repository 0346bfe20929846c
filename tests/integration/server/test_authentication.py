"""Which calls are accepted: without a key, with a key, with a revoked key; and when a server needs a key."""

import asyncio
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from runtime.clock import ManualClock
from runtime.configuration import Configuration
from server.authentication.api_keys import CACHE_LIFETIME, Authenticator, UnsafeListen
from server.calls.lifecycle import Shutdown
from server.process import serve
from store.identity import keys
from store.identity.keys import CreatedKey
from store.postgres.database import Database
from tests.support.server.odd_service import OddClient
from tests.support.server.running import SERVING, Running, reason_of

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)


async def create_key(database: Database, organization: str = "acme") -> CreatedKey:
    async with database.transaction() as connection:
        return await keys.create_key(connection, organization, NOW)


async def who(odd: OddClient, *authorization: str) -> str:
    """The organization that a call with these authorization metadata acts for."""
    metadata = tuple(("authorization", value) for value in authorization)
    answer: str = await odd.unary("WhoAmI")("", metadata=metadata)
    return answer.split()[0]


async def assert_refused(odd: OddClient, *authorization: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await who(odd, *authorization)
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert reason_of(raised.value) == "ERROR_REASON_UNAUTHENTICATED"
    assert "tmk_wrong" not in str(raised.value)


async def test_without_any_key_callers_act_for_default(odd: OddClient) -> None:
    assert await who(odd) == "default"


async def test_a_server_without_a_key_logs_a_warning(
    database: Database, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    await Authenticator(database, clock, listens_to_loopback_only=True).start()
    assert "no API key exists" in caplog.text
    assert "tidemark keys create" in caplog.text
    caplog.clear()
    await create_key(database)
    await Authenticator(database, clock, listens_to_loopback_only=True).start()
    assert caplog.text == ""


async def test_a_running_server_needs_keys_after_the_first_is_created(
    odd: OddClient, database: Database, clock: ManualClock
) -> None:
    assert await who(odd) == "default"
    created = await create_key(database)
    assert await who(odd, f"Bearer {created.key}") == "acme"
    clock.advance(CACHE_LIFETIME)
    await assert_refused(odd)
    assert await who(odd, f"Bearer {created.key}") == "acme"


async def test_each_key_acts_for_its_organization(odd: OddClient, database: Database) -> None:
    first, second = await create_key(database, "acme"), await create_key(database, "other")
    for _ in range(2):
        assert await who(odd, f"Bearer {first.key}") == "acme"
        assert await who(odd, f"bearer  {second.key} ") == "other"


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer tmk_wrong",
        "Basic dXNlcjpwYXNz",
        "tmk_wrong",
    ],
)
async def test_an_authorization_that_is_no_key_is_refused(
    odd: OddClient, database: Database, authorization: str
) -> None:
    await assert_refused(odd, authorization)  # while calls without a key are allowed
    await create_key(database)
    await assert_refused(odd, authorization)


async def test_two_different_keys_in_one_call_are_refused(odd: OddClient, database: Database) -> None:
    first, second = await create_key(database, "acme"), await create_key(database, "other")
    await assert_refused(odd, f"Bearer {first.key}", f"Bearer {second.key}")
    assert await who(odd, f"Bearer {first.key}", f"Bearer {first.key}") == "acme"


async def test_a_revoked_key_is_refused_within_seconds(
    odd: OddClient, database: Database, clock: ManualClock
) -> None:
    created = await create_key(database)
    assert await who(odd, f"Bearer {created.key}") == "acme"
    async with database.transaction() as connection:
        await keys.revoke_key(connection, created.key_id, NOW)
    clock.advance(CACHE_LIFETIME)
    await assert_refused(odd, f"Bearer {created.key}")
    await assert_refused(odd)


async def test_a_clock_set_back_does_not_keep_a_revoked_key_alive(
    odd: OddClient, database: Database, clock: ManualClock
) -> None:
    created = await create_key(database)
    assert await who(odd, f"Bearer {created.key}") == "acme"
    async with database.transaction() as connection:
        await keys.revoke_key(connection, created.key_id, NOW)
    clock.advance(-timedelta(hours=1))
    await assert_refused(odd, f"Bearer {created.key}")


async def test_a_stream_acts_for_the_organization_of_its_key(odd: OddClient, database: Database) -> None:
    created = await create_key(database)
    call = odd.stream("WhoAmIStream")(metadata=(("authorization", f"Bearer {created.key}"),))
    await call.write("x")
    assert (await call.read()).split()[0] == "acme"
    await call.done_writing()
    assert await odd.stream("WhoAmIStream")().code() is grpc.StatusCode.UNAUTHENTICATED


async def test_health_needs_no_key(odd_server: Running, database: Database) -> None:
    await create_key(database)
    assert await odd_server.health_of("") == SERVING


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_a_server_does_not_listen_to_other_machines_without_a_key(
    database: Database, clock: ManualClock, host: str
) -> None:
    with pytest.raises(UnsafeListen, match="tidemark keys create"):
        await serve(Configuration(listen_host=host, listen_port=0), database, clock, Shutdown())


async def test_a_server_listens_to_other_machines_after_a_key_exists(database: Database, clock: ManualClock) -> None:
    await create_key(database)
    shutdown = Shutdown()
    ports: list[int] = []

    def stop_at_once(host: str, port: int) -> None:
        ports.append(port)
        shutdown.request()
        shutdown.request()

    await asyncio.wait_for(
        serve(Configuration(listen_host="0.0.0.0", listen_port=0), database, clock, shutdown, stop_at_once), 60
    )
    assert ports[0] > 0
