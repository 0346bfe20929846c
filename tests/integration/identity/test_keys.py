"""API keys in PostgreSQL: shown once, stored as hashes, revoked and never deleted."""

import asyncio
import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from store.identity import keys, organizations
from store.identity.callers import Caller, find_caller, hash_key
from store.identity.keys import BadOrganizationName, CannotTakeOver
from store.identity.organizations import Organization
from store.postgres.database import Database, driver
from store.rules import routing_facts as facts
from store.tables.accounts import api_key
from tests.support.postgres.lock_waits import until_it_waits_for_a_lock

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)


async def test_a_key_identifies_its_organization(database: Database) -> None:
    async with database.transaction() as connection:
        created = await keys.create_key(connection, "acme", NOW)
        second = await keys.create_key(connection, "acme", NOW)
        other = await keys.create_key(connection, "other", NOW)
    assert re.fullmatch(r"tmk_[A-Za-z0-9_-]{43}", created.key)
    assert len({created.key, second.key, other.key}) == 3
    assert created.organization == second.organization != other.organization
    async with database.transaction() as connection:
        assert await find_caller(connection, hash_key(created.key)) == Caller(created.organization, created.key_id)
        assert await find_caller(connection, hash_key(other.key)) == Caller(other.organization, other.key_id)
        assert await find_caller(connection, hash_key(created.key + "x")) is None


async def test_a_key_is_stored_only_as_its_hash_and_not_in_a_repr(database: Database) -> None:
    async with database.transaction() as connection:
        created = await keys.create_key(connection, "acme", NOW)
        row = (await connection.execute(select(api_key))).one()
    assert row.key_hash == hash_key(created.key)
    assert created.key not in str(row)
    assert created.key not in repr(created)


async def test_a_revoked_key_identifies_no_organization(database: Database) -> None:
    async with database.transaction() as connection:
        created = await keys.create_key(connection, "acme", NOW)
        assert await keys.revoke_key(connection, created.key_id, NOW)
        assert await find_caller(connection, hash_key(created.key)) is None
        assert not await keys.revoke_key(connection, "key_unknown", NOW)


async def test_a_second_revocation_keeps_the_first_time(database: Database) -> None:
    async with database.transaction() as connection:
        created = await keys.create_key(connection, "acme", NOW)
        assert await keys.revoke_key(connection, created.key_id, NOW)
        assert await keys.revoke_key(connection, created.key_id, NOW + timedelta(days=1))
        (record,) = await keys.list_keys(connection)
    assert record.revoke_time == NOW


async def test_a_key_still_exists_after_the_last_one_is_revoked(database: Database) -> None:
    async with database.transaction() as connection:
        assert not await keys.any_key_exists(connection)
        created = await keys.create_key(connection, "acme", NOW)
        await keys.revoke_key(connection, created.key_id, NOW)
        assert await keys.any_key_exists(connection)


async def test_keys_are_listed_by_organization_and_time(database: Database) -> None:
    async with database.transaction() as connection:
        late = await keys.create_key(connection, "b", NOW + timedelta(seconds=1))
        early = await keys.create_key(connection, "b", NOW)
        first = await keys.create_key(connection, "a", NOW + timedelta(seconds=2))
        listed = await keys.list_keys(connection)
    assert [record.key_id for record in listed] == [first.key_id, early.key_id, late.key_id]
    assert [record.organization.name for record in listed] == ["a", "b", "b"]
    assert listed[0].create_time == NOW + timedelta(seconds=2)


async def test_an_organization_is_created_once(database: Database) -> None:
    async with database.transaction() as connection:
        made = await keys.get_or_create_organization(connection, "acme", NOW)
        assert await keys.get_or_create_organization(connection, "acme", NOW) == made
    assert made == Organization(made.organization_id, "acme")


@pytest.mark.parametrize("name", ["", " a", "a ", "a\n", "a\0b", "a" * 129])
async def test_a_bad_organization_name_is_refused(database: Database, name: str) -> None:
    with pytest.raises(BadOrganizationName, match="cannot name an organization"):
        async with database.transaction() as connection:
            await keys.create_key(connection, name, NOW)


async def anonymous_customer(database: Database) -> Organization:
    """The organization `default`, with a customer."""
    async with database.transaction() as connection:
        made = await keys.get_or_create_organization(connection, "default", NOW)
        await facts.register_customers(await driver(connection), made.organization_id, ["c"], 1, NOW)
    return made


async def test_the_first_key_reports_that_it_leaves_data_of_default_behind(database: Database) -> None:
    default = await anonymous_customer(database)
    async with database.transaction() as connection:
        assert await keys.leaves_behind(connection, "acme")
        assert not await keys.leaves_behind(connection, "default")
        first = await keys.create_key(connection, "acme", NOW)
        second = await keys.create_key(connection, "other", NOW)
        own = await keys.create_key(connection, "default", NOW)
    assert (first.left_behind, first.took_over) == (True, False)
    assert not second.left_behind
    assert own.organization == default


async def test_the_first_key_does_not_report_a_default_without_data(database: Database) -> None:
    async with database.transaction() as connection:
        await keys.get_or_create_organization(connection, "default", NOW)
        assert not (await keys.create_key(connection, "acme", NOW)).left_behind


async def test_a_take_over_keeps_the_number_of_default_and_changes_its_name(database: Database) -> None:
    default = await anonymous_customer(database)
    async with database.transaction() as connection:
        created = await keys.create_key(connection, "acme", NOW, take_over=True)
        assert await organizations.find(connection, "default") is None
    assert (created.took_over, created.left_behind) == (True, False)
    assert created.organization == Organization(default.organization_id, "acme")


async def test_a_take_over_by_an_existing_organization_is_refused(database: Database) -> None:
    default = await anonymous_customer(database)
    async with database.transaction() as connection:
        await keys.create_key(connection, "acme", NOW)
    with pytest.raises(CannotTakeOver, match="exists already"):
        async with database.transaction() as connection:
            await keys.create_key(connection, "acme", NOW, take_over=True)
    async with database.transaction() as connection:
        assert len(await keys.list_keys(connection)) == 1
        later = await keys.create_key(connection, "acme inc", NOW, take_over=True)
    assert later.organization == Organization(default.organization_id, "acme inc")


async def test_a_take_over_without_data_of_default_creates_a_key(database: Database) -> None:
    async with database.transaction() as connection:
        first = await keys.create_key(connection, "acme", NOW, take_over=True)
        assert (await keys.create_key(connection, "acme", NOW, take_over=True)).organization == first.organization
        assert (await keys.create_key(connection, "default", NOW, take_over=True)).organization.name == "default"
    assert not first.took_over


async def test_a_transaction_that_found_no_key_delays_the_first_key(database: Database) -> None:
    """A server must not create `default` again while, or after, it is renamed."""
    await anonymous_customer(database)

    async def take_over() -> None:
        async with database.transaction() as connection:
            await keys.create_key(connection, "acme", NOW, take_over=True)

    async with database.transaction() as connection:
        assert await keys.no_key_exists(connection)
        taking = asyncio.create_task(take_over())
        await until_it_waits_for_a_lock(database, taking)
        assert not taking.done()
        await keys.get_or_create_organization(connection, "default", NOW)
    await taking
    async with database.transaction() as connection:
        assert not await keys.no_key_exists(connection)
        assert await organizations.find(connection, "default") is None
