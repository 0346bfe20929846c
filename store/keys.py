"""API keys: what callers present, kept as hashes only, and the organizations that they stand for."""

import base64
import hashlib
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import exists, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from store import organizations
from store.ids import random_id
from store.tables.accounts import api_key, organization

KEY_PREFIX = "tmk_"
KEY_BYTES = 32  # of randomness, which are 43 characters
KEY_ID_PREFIX = "key_"

MAX_NAME_LENGTH = 128  # characters


class BadOrganizationName(ValueError):
    """An organization cannot have that name."""


@dataclass(frozen=True, slots=True)
class Organization:
    """A tenant: the number that every row carries, and the name that people use."""

    organization_id: int
    name: str


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A new key. The key itself is shown this once and stored nowhere."""

    key_id: str
    key: str = field(repr=False)
    organization: Organization


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is kept of a key."""

    key_id: str
    organization: Organization
    create_time: datetime
    revoke_time: datetime | None


def hash_key(key: str) -> bytes:
    """What the database knows a key by. One round is enough: a key is 256 random bits, not a password."""
    return hashlib.sha256(key.encode()).digest()


async def get_or_create_organization(connection: AsyncConnection, name: str, now: datetime) -> Organization:
    """The organization of that name, made when there is none."""
    return Organization(await organizations.get_or_create(connection, name, now), name)


async def create_key(connection: AsyncConnection, organization_name: str, now: datetime) -> CreatedKey:
    """Makes a key for the organization of that name, and the organization when there is none.

    Raises BadOrganizationName.
    """
    name = organization_name
    if not 1 <= len(name) <= MAX_NAME_LENGTH or name != name.strip() or not name.isprintable():
        raise BadOrganizationName(
            f"{name!r} cannot name an organization: write 1 to {MAX_NAME_LENGTH} printable characters,"
            " without blanks at either end"
        )
    owner = await get_or_create_organization(connection, organization_name, now)
    key = KEY_PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode().rstrip("=")
    key_id = random_id(KEY_ID_PREFIX)
    await connection.execute(
        insert(api_key).values(
            key_hash=hash_key(key), key_id=key_id, organization_id=owner.organization_id, create_time=now
        )
    )
    return CreatedKey(key_id, key, owner)


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


async def revoked_among(connection: AsyncConnection, key_ids: Collection[str]) -> set[str]:
    """Those of these keys that have ended."""
    rows = await connection.scalars(
        select(api_key.c.key_id).where(api_key.c.key_id.in_(key_ids), api_key.c.revoke_time.is_not(None))
    )
    return set(rows)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: the organization that a key stands for, and the key's id; that is empty where none was needed."""

    organization: Organization
    key_id: str = ""


async def find_caller(connection: AsyncConnection, key_hash: bytes) -> Caller | None:
    """Whom a key that is not revoked stands for."""
    row = (
        await connection.execute(
            select(organization.c.organization_id, organization.c.name, api_key.c.key_id)
            .join(api_key, api_key.c.organization_id == organization.c.organization_id)
            .where(api_key.c.key_hash == key_hash, api_key.c.revoke_time.is_(None))
        )
    ).one_or_none()
    return None if row is None else Caller(Organization(row.organization_id, row.name), row.key_id)
