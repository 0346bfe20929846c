"""API keys: what callers present, kept as hashes only, and the organizations that they stand for."""

import base64
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import exists, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from store.identity import organizations
from store.identity.callers import hash_key
from store.identity.organizations import DEFAULT_ORGANIZATION, Organization
from store.ids import random_id
from store.tables.accounts import api_key, customer, metric, organization
from store.tables.alerts import alert
from store.tables.plans import plan, usage_limit
from store.tables.usage import event
from store.tables.webhooks import endpoint

KEY_PREFIX = "tmk_"
KEY_BYTES = 32  # of randomness, which are 43 characters
KEY_ID_PREFIX = "key_"

MAX_NAME_LENGTH = 128  # characters


_LOCK = 0x7469646B  # the advisory lock of whether a key exists

# What callers without a key may have made first. A customer, a metric and a subscription come with their first event.
_FIRST = (alert, customer, metric, plan, usage_limit, event, endpoint)


class BadOrganizationName(ValueError):
    """An organization cannot have that name."""


class CannotTakeOver(ValueError):
    """What the organization `default` holds cannot become another organization's."""


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A new key. The key itself is shown this once and stored nowhere.

    took_over: the organization was called `default` until then. left_behind: it is the first key of all, and
    `default` holds data that no caller reaches any more.
    """

    key_id: str
    key: str = field(repr=False)
    organization: Organization
    took_over: bool = False
    left_behind: bool = False


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is kept of a key."""

    key_id: str
    organization: Organization
    create_time: datetime
    revoke_time: datetime | None


async def get_or_create_organization(connection: AsyncConnection, name: str, now: datetime) -> Organization:
    """The organization of that name, made when there is none."""
    return Organization(await organizations.get_or_create(connection, name, now), name)


async def create_key(
    connection: AsyncConnection, organization_name: str, now: datetime, *, take_over: bool = False
) -> CreatedKey:
    """Makes a key for the organization of that name, and the organization when there is none.

    take_over: the organization `default`, if there is one, gets that name first, with all that it holds; its keys
    stay what they are. Raises BadOrganizationName and CannotTakeOver.
    """
    name = organization_name
    if not 1 <= len(name) <= MAX_NAME_LENGTH or name != name.strip() or not name.isprintable():
        raise BadOrganizationName(
            f"{name!r} cannot name an organization: write 1 to {MAX_NAME_LENGTH} printable characters,"
            " without blanks at either end"
        )
    # A server that has just seen no key must not make `default` anew after it was renamed; see `no_key_exists`.
    await connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    taken = take_over and await _take_over(connection, name)
    left_behind = await leaves_behind(connection, name)
    owner = await get_or_create_organization(connection, organization_name, now)
    key = KEY_PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode().rstrip("=")
    key_id = random_id(KEY_ID_PREFIX)
    await connection.execute(
        insert(api_key).values(
            key_hash=hash_key(key), key_id=key_id, organization_id=owner.organization_id, create_time=now
        )
    )
    return CreatedKey(key_id, key, owner, taken, left_behind)


async def leaves_behind(connection: AsyncConnection, organization_name: str) -> bool:
    """Whether the first key of all, made for that organization, takes callers away from what `default` holds."""
    if organization_name == DEFAULT_ORGANIZATION or await any_key_exists(connection):
        return False
    return await _default_with_data(connection) is not None


async def _take_over(connection: AsyncConnection, name: str) -> bool:
    """Gives the organization `default` another name; whether there was one."""
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
    """The id of the organization `default`, if it has more than a name."""
    organization_id = await organizations.find(connection, DEFAULT_ORGANIZATION)
    if organization_id is None:
        return None
    held = [exists().where(table.c.organization_id == organization_id) for table in _FIRST]
    return organization_id if await connection.scalar(select(or_(*held))) else None


async def list_keys(connection: AsyncConnection) -> list[KeyRecord]:
    """Every key of every organization, revoked ones too, in the order of organization and creation."""
    rows = await connection.execute(
        select(api_key, organization.c.name)
        .join(organization, organization.c.organization_id == api_key.c.organization_id)
        .order_by(organization.c.name, api_key.c.create_time, api_key.c.key_id)
    )
    return [
        KeyRecord(row.key_id, Organization(row.organization_id, row.name), row.create_time, row.revoke_time)
        for row in rows
    ]


async def revoke_key(connection: AsyncConnection, key_id: str, now: datetime) -> bool:
    """Ends a key, for ever. False when there is none of that id; a key revoked before stays as it is."""
    found = await connection.scalar(select(exists().where(api_key.c.key_id == key_id)))
    await connection.execute(
        update(api_key).where(api_key.c.key_id == key_id, api_key.c.revoke_time.is_(None)).values(revoke_time=now)
    )
    return bool(found)


async def any_key_exists(connection: AsyncConnection) -> bool:
    """Whether a key was ever made. Revoked ones count: revoking the last must not let everybody in."""
    return bool(await connection.scalar(select(exists().select_from(api_key))))


async def no_key_exists(connection: AsyncConnection) -> bool:
    """Whether no key was ever made, which then stays so until the transaction ends."""
    await connection.execute(select(func.pg_advisory_xact_lock_shared(_LOCK)))
    # A statement of its own: its snapshot has to be younger than the lock.
    return not await any_key_exists(connection)


async def revoked_among(connection: AsyncConnection, key_ids: Collection[str]) -> set[str]:
    """Those of these keys that have ended."""
    rows = await connection.scalars(
        select(api_key.c.key_id).where(api_key.c.key_id.in_(key_ids), api_key.c.revoke_time.is_not(None))
    )
    return set(rows)
