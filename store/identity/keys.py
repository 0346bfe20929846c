"""API keys: the credentials of callers, stored as hashes, and the organizations that they belong to."""

import base64
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import case, exists, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from store.identity import organizations
from store.identity.callers import hash_identity, hash_key
from store.identity.organizations import DEFAULT_ORGANIZATION, Organization
from store.identity.roles import ALL, Role
from store.ids import random_id
from store.tables.accounts import api_key, customer, metric, organization
from store.tables.alerts import alert
from store.tables.plans import plan, usage_limit
from store.tables.webhooks import endpoint

KEY_PREFIX = "tmk_"
KEY_BYTES = 32  # of randomness, which are 43 characters
KEY_ID_PREFIX = "key_"

MAX_NAME_LENGTH = 128  # characters


_LOCK = 0x7469646B  # the advisory lock for whether any key exists

# The tables that have a row if an organization holds data: each of a caller's first requests writes one of them.
# Usage registers its customers.
_DATA_TABLES = (alert, customer, metric, plan, usage_limit, endpoint)


@dataclass(frozen=True, slots=True)
class KeySettings:
    """What a key may be used for, and until when.

    customer_id: the only customer that it may read; empty: all. display_name: for people. expire_time: from which on
    it is not accepted; None: it does not expire.
    """

    roles: frozenset[Role] = ALL
    customer_id: str = ""
    display_name: str = ""
    expire_time: datetime | None = None


ADMINISTRATOR = KeySettings()


class BadOrganizationName(ValueError):
    """The name is not valid for an organization."""


class IdentityTaken(ValueError):
    """The identity of a client certificate belongs to an organization already."""


class CannotTakeOver(ValueError):
    """The data of the organization `default` cannot move to another organization."""


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A new key. The key itself is shown once and not stored; it is empty for the identity of a client certificate.

    took_over: the organization was named `default` before. left_behind: this is the first key of all, and `default`
    holds data that callers can no longer reach.
    """

    key_id: str
    key: str = field(repr=False)
    organization: Organization
    took_over: bool = False
    left_behind: bool = False


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is stored of a key."""

    key_id: str
    organization: Organization
    create_time: datetime
    revoke_time: datetime | None
    settings: KeySettings = ADMINISTRATOR
    last_use_time: datetime | None = None  # up to a minute old
    identity: str = ""  # of a client certificate, which needs no key


_RECORDS = select(api_key, organization.c.name).join(
    organization, organization.c.organization_id == api_key.c.organization_id
)


async def get_or_create_organization(connection: AsyncConnection, name: str, now: datetime) -> Organization:
    """The organization of that name; creates it if it does not exist."""
    return Organization(await organizations.get_or_create(connection, name, now), name)


async def create_key(
    connection: AsyncConnection,
    organization_name: str,
    now: datetime,
    settings: KeySettings = ADMINISTRATOR,
    *,
    identity: str = "",
    take_over: bool = False,
) -> CreatedKey:
    """Creates a key for the organization of that name, and the organization if it does not exist.

    identity: of a client certificate, which then needs no key. Raises IdentityTaken if it has an organization.

    take_over: the organization `default`, if it exists, first gets that name and keeps its data and its keys. Raises
    BadOrganizationName and CannotTakeOver.
    """
    name = organization_name
    if not 1 <= len(name) <= MAX_NAME_LENGTH or name != name.strip() or not name.isprintable():
        raise BadOrganizationName(
            f"{name!r} cannot name an organization: write 1 to {MAX_NAME_LENGTH} printable characters,"
            " without blanks at either end"
        )
    # A server that has just found no key must not create `default` again after it was renamed; see `no_key_exists`.
    await connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    taken = take_over and await _take_over(connection, name)
    left_behind = await leaves_behind(connection, name)
    owner = await get_or_create_organization(connection, organization_name, now)
    key_id, key = await insert_key(connection, owner, settings, now, identity)
    return CreatedKey(key_id, key, owner, taken, left_behind)


async def insert_key(
    connection: AsyncConnection, owner: Organization, settings: KeySettings, now: datetime, identity: str = ""
) -> tuple[str, str]:
    """Stores a new key of an organization; returns its id and the key itself, which is empty for an identity.

    Raises IdentityTaken.
    """
    random = base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode().rstrip("=")
    key = "" if identity else KEY_PREFIX + random
    key_id = random_id(KEY_ID_PREFIX)
    inserted = await connection.scalar(
        pg_insert(api_key)
        .values(
            key_hash=hash_identity(identity) if identity else hash_key(key),
            key_id=key_id,
            organization_id=owner.organization_id,
            create_time=now,
            identity=identity or None,
            **columns_of(settings),
        )
        .on_conflict_do_nothing()
        .returning(api_key.c.key_id)
    )
    if inserted is None:
        raise IdentityTaken(f"the identity {identity!r} has an organization already: revoke it there first")
    return key_id, key


def columns_of(settings: KeySettings) -> dict[str, Any]:
    """The values of the columns of a key's settings."""
    return {
        "roles": sorted(settings.roles),
        "customer_id": settings.customer_id or None,
        "display_name": settings.display_name,
        "expire_time": settings.expire_time,
    }


async def leaves_behind(connection: AsyncConnection, organization_name: str) -> bool:
    """Whether a key for that organization is the first of all, and makes the data of `default` unreachable."""
    if organization_name == DEFAULT_ORGANIZATION or await any_key_exists(connection):
        return False
    return await _default_with_data(connection) is not None


async def _take_over(connection: AsyncConnection, name: str) -> bool:
    """Renames the organization `default`; returns whether it exists."""
    if name == DEFAULT_ORGANIZATION:
        return False
    if await organizations.find(connection, name) is not None:
        if await _default_with_data(connection) is None:
            return False
        raise CannotTakeOver(
            f"the organization {name!r} exists already, and two organizations cannot become one: nothing was changed"
        )
    organization_id = await organizations.find(connection, DEFAULT_ORGANIZATION)
    if organization_id is None:
        return False
    await organizations.rename(connection, organization_id, name)
    return True


async def _default_with_data(connection: AsyncConnection) -> int | None:
    """The id of the organization `default`; None if it does not exist or holds no data."""
    organization_id = await organizations.find(connection, DEFAULT_ORGANIZATION)
    if organization_id is None:
        return None
    held = [exists().where(table.c.organization_id == organization_id) for table in _DATA_TABLES]
    return organization_id if await connection.scalar(select(or_(*held))) else None


async def list_keys(connection: AsyncConnection) -> list[KeyRecord]:
    """All keys of all organizations, including revoked ones, in the order of organization name and creation."""
    rows = await connection.execute(_RECORDS.order_by(organization.c.name, api_key.c.create_time, api_key.c.key_id))
    return [_record(row) for row in rows]


async def get_key(
    connection: AsyncConnection, organization_name: str, key_id: str, *, locked: bool = False
) -> KeyRecord | None:
    """One key of an organization, also a revoked one, or None. locked: until the transaction ends."""
    statement = _RECORDS.where(api_key.c.key_id == key_id, organization.c.name == organization_name)
    if locked:
        statement = statement.with_for_update(of=api_key)
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else _record(row)


def _record(row: Any) -> KeyRecord:
    return KeyRecord(
        row.key_id,
        Organization(row.organization_id, row.name),
        row.create_time,
        row.revoke_time,
        settings_of(row),
        row.last_use_time,
        row.identity or "",
    )


def settings_of(row: Any) -> KeySettings:
    """The settings in a row of the table."""
    roles = frozenset(Role(name) for name in row.roles if name in Role.__members__)
    return KeySettings(roles, row.customer_id or "", row.display_name, row.expire_time)


async def revoke_key(connection: AsyncConnection, key_id: str, now: datetime) -> bool:
    """Revokes a key for good; returns whether it exists. A key that was revoked before keeps its revoke_time.

    The identity of a client certificate may be created again afterwards.
    """
    found = await connection.scalar(select(exists().where(api_key.c.key_id == key_id)))
    free = case((api_key.c.identity.is_(None), api_key.c.key_hash), else_=hash_key(key_id))
    await connection.execute(
        update(api_key)
        .where(api_key.c.key_id == key_id, api_key.c.revoke_time.is_(None))
        .values(revoke_time=now, key_hash=free)
    )
    return bool(found)


async def any_key_exists(connection: AsyncConnection) -> bool:
    """Whether a key was ever created. Revoked keys count: revoking the last one must not open the service to all."""
    return bool(await connection.scalar(select(exists().select_from(api_key))))


async def no_key_exists(connection: AsyncConnection) -> bool:
    """Whether no key was ever created. If so, no key can be created until the transaction ends."""
    await connection.execute(select(func.pg_advisory_xact_lock_shared(_LOCK)))
    # A separate statement: its snapshot must be newer than the lock, or it misses the key that the lock waited for.
    return not await any_key_exists(connection)
