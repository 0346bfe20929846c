"""API keys in PostgreSQL: shown once, stored as hashes, never unmade."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from store import keys
from store.database import Database
from store.keys import BadOrganizationName, Caller, Organization
from store.tables.accounts import api_key

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)


async def test_a_key_stands_for_its_organization(database: Database) -> None:
    async with database.transaction() as connection:
        created = await keys.create_key(connection, "acme", NOW)
        second = await keys.create_key(connection, "acme", NOW)
        other = await keys.create_key(connection, "other", NOW)
    assert re.fullmatch(r"tmk_[A-Za-z0-9_-]{43}", created.key)
    assert len({created.key, second.key, other.key}) == 3
    assert created.organization == second.organization != other.organization
    async with database.transaction() as connection:
        assert await keys.find_caller(connection, keys.hash_key(created.key)) == Caller(
            created.organization, created.key_id
        )
        assert await keys.find_caller(connection, keys.hash_key(other.key)) == Caller(
            other.organization, other.key_id
        )
        assert await keys.find_caller(connection, keys.hash_key(created.key + "x")) is None


async def test_the_key_itself_is_stored_nowhere_and_shown_by_no_repr(database: Database) -> None:
    async with database.transaction() as connection:
        created = await keys.create_key(connection, "acme", NOW)
        row = (await connection.execute(select(api_key))).one()
    assert row.key_hash == keys.hash_key(created.key)
    assert created.key not in str(row)
    assert created.key not in repr(created)


async def test_a_revoked_key_stands_for_nobody(database: Database) -> None:
    async with database.transaction() as connection:
        created = await keys.create_key(connection, "acme", NOW)
        assert await keys.revoke_key(connection, created.key_id, NOW)
        assert await keys.find_caller(connection, keys.hash_key(created.key)) is None
        assert not await keys.revoke_key(connection, "key_unknown", NOW)


async def test_revoking_twice_keeps_the_first_time(database: Database) -> None:
    async with database.transaction() as connection:
        created = await keys.create_key(connection, "acme", NOW)
        assert await keys.revoke_key(connection, created.key_id, NOW)
        assert await keys.revoke_key(connection, created.key_id, NOW + timedelta(days=1))
        (record,) = await keys.list_keys(connection)
    assert record.revoke_time == NOW


async def test_revoking_the_last_key_does_not_open_the_door(database: Database) -> None:
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


async def test_an_organization_is_made_once(database: Database) -> None:
    async with database.transaction() as connection:
        made = await keys.get_or_create_organization(connection, "acme", NOW)
        assert await keys.get_or_create_organization(connection, "acme", NOW) == made
    assert made == Organization(made.organization_id, "acme")


@pytest.mark.parametrize("name", ["", " a", "a ", "a\n", "a\0b", "a" * 129])
async def test_a_bad_organization_name_is_refused(database: Database, name: str) -> None:
    with pytest.raises(BadOrganizationName, match="cannot name an organization"):
        async with database.transaction() as connection:
            await keys.create_key(connection, name, NOW)
