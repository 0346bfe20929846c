"""Repeated requests with a request id get the first answer, also when they run concurrently."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from store.identity import idempotent_answers, organizations
from store.identity.idempotent_answers import RequestIdReused
from store.postgres.database import Database

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
METHOD = "/tidemark.v1.AlertService/CreateAlert"


@pytest.fixture
async def org(database: Database) -> int:
    async with database.transaction() as connection:
        return await organizations.get_or_create(connection, "acme", NOW)


async def handle(
    database: Database, org: int, request_id: str, payload: bytes, response: bytes, method: str = METHOD
) -> bytes:
    """Does what a handler does: returns the stored answer, or stores `response` and returns it."""
    async with database.transaction() as connection:
        first = await idempotent_answers.find_answer(connection, org, method, request_id, payload)
        if first is not None:
            return first
        await asyncio.sleep(0)
        await idempotent_answers.store_answer(connection, org, method, request_id, payload, response, NOW)
        return response


async def test_a_repeated_request_gets_the_first_answer(database: Database, org: int) -> None:
    assert await handle(database, org, "r1", b"payload", b"first") == b"first"
    assert await handle(database, org, "r1", b"payload", b"second") == b"first"


async def test_the_same_request_id_with_another_payload_is_refused(database: Database, org: int) -> None:
    await handle(database, org, "r1", b"payload", b"first")
    with pytest.raises(RequestIdReused, match="r1"):
        await handle(database, org, "r1", b"other", b"second")


async def test_a_request_id_belongs_to_one_method_of_one_organization(database: Database, org: int) -> None:
    async with database.transaction() as connection:
        other = await organizations.get_or_create(connection, "other", NOW)
    await handle(database, org, "r1", b"payload", b"first")
    assert await handle(database, other, "r1", b"payload 2", b"theirs") == b"theirs"
    assert await handle(database, org, "r1", b"payload 3", b"another", method="/x/Y") == b"another"


async def test_concurrent_tries_get_one_answer(database: Database, org: int) -> None:
    answers = await asyncio.gather(
        *(handle(database, org, "r1", b"payload", f"try {number}".encode()) for number in range(8))
    )
    assert len(set(answers)) == 1


async def test_a_failed_request_stores_no_answer(database: Database, org: int) -> None:
    async def fail() -> None:
        async with database.transaction() as connection:
            await idempotent_answers.store_answer(connection, org, METHOD, "r1", b"payload", b"first", NOW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await handle(database, org, "r1", b"other payload", b"second") == b"second"


async def test_answers_before_a_time_are_deleted(database: Database, org: int) -> None:
    await handle(database, org, "r1", b"payload", b"first")
    async with database.transaction() as connection:
        assert await idempotent_answers.delete_before(connection, NOW) == 0
        assert await idempotent_answers.delete_before(connection, NOW + timedelta(seconds=1)) == 1
    assert await handle(database, org, "r1", b"other", b"second") == b"second"
