"""Callers: the organization that a presented API key stands for."""

import hashlib
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from store.identity.organizations import Organization
from store.tables.accounts import api_key, organization


def hash_key(key: str) -> bytes:
    """What the database knows a key by. One round is enough: a key is 256 random bits, not a password."""
    return hashlib.sha256(key.encode()).digest()


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
