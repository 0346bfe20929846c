"""Callers: finds the organization of an API key."""

import hashlib
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from store.identity.organizations import Organization
from store.tables.accounts import api_key, organization


def hash_key(key: str) -> bytes:
    """The hash of a key, as the database stores it. One round is enough: a key is 256 random bits, not a password."""
    return hashlib.sha256(key.encode()).digest()


@dataclass(frozen=True, slots=True)
class Caller:
    """The organization of a call, and the id of its API key; empty if the call needed no key."""

    organization: Organization
    key_id: str = ""


async def find_caller(connection: AsyncConnection, key_hash: bytes) -> Caller | None:
    """The caller with that key; None if the key does not exist or is revoked."""
    row = (
        await connection.execute(
            select(organization.c.organization_id, organization.c.name, api_key.c.key_id)
            .join(api_key, api_key.c.organization_id == organization.c.organization_id)
            .where(api_key.c.key_hash == key_hash, api_key.c.revoke_time.is_(None))
        )
    ).one_or_none()
    return None if row is None else Caller(Organization(row.organization_id, row.name), row.key_id)
