"""Callers: finds the organization of an API key, and what the key may be used for."""

import functools
import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, any_, cast, select
from sqlalchemy.ext.asyncio import AsyncConnection

from store.identity.organizations import Organization
from store.identity.roles import ALL, Role
from store.tables.accounts import api_key, organization
from store.tables.base import Identifier

_REMEMBERED = 32_768  # callers, each about 500 bytes


def hash_key(key: str) -> bytes:
    """The hash of a key, as the database stores it. One round is enough: a key is 256 random bits, not a password."""
    return hashlib.sha256(key.encode()).digest()


def hash_identity(identity: str) -> bytes:
    """What is stored for the identity of a client certificate. It begins with a byte that no key can contain.

    DNS names are the same in upper and lower case; URIs, which have a colon, are not.
    """
    text = identity if ":" in identity else identity.lower()
    return hashlib.sha256(b"\0identity\0" + text.encode()).digest()


@dataclass(frozen=True, slots=True)
class Caller:
    """The organization of a call, and what its API key may be used for.

    key_id: empty if the call needed no key. customer_id: the only customer that the key may read; empty: all.
    expire_time: from which on the key is not accepted. display_name: of the key. identity: of the client certificate
    that stands in place of a key.
    """

    organization: Organization
    key_id: str = ""
    roles: frozenset[Role] = ALL
    customer_id: str = ""
    expire_time: datetime | None = None
    display_name: str = ""
    identity: str = ""

    def is_expired(self, now: datetime) -> bool:
        """Whether the key is not accepted any more."""
        return self.expire_time is not None and self.expire_time <= now


_CALLER = (
    select(
        organization.c.organization_id,
        organization.c.name,
        api_key.c.key_id,
        api_key.c.roles,
        api_key.c.customer_id,
        api_key.c.expire_time,
        api_key.c.display_name,
        api_key.c.identity,
    )
    .join(api_key, api_key.c.organization_id == organization.c.organization_id)
    .where(api_key.c.revoke_time.is_(None))
)


async def find_caller(connection: AsyncConnection, key_hash: bytes) -> Caller | None:
    """The caller with that key; None if the key does not exist or is revoked. The caller may be expired."""
    row = (await connection.execute(_CALLER.where(api_key.c.key_hash == key_hash))).one_or_none()
    return None if row is None else _of_row(row)


async def callers_of(connection: AsyncConnection, key_ids: Collection[str]) -> dict[str, Caller]:
    """The callers with these keys, as they are now, by key; without revoked ones. A caller may be expired."""
    # One array: with a parameter for each key, more than 65,535 keys would fail.
    is_one = api_key.c.key_id == any_(cast(list(key_ids), ARRAY(Identifier)))
    rows = await connection.execute(_CALLER.where(is_one))
    return {caller.key_id: caller for caller in map(_of_row, rows)}


def _of_row(row: Any) -> Caller:
    organization_id, name, key_id, roles, customer_id, expire_time, display_name, identity = row
    return _caller(organization_id, name, key_id, tuple(roles), customer_id, expire_time, display_name, identity)


@functools.lru_cache(_REMEMBERED)
def _caller(
    organization_id: int,
    name: str,
    key_id: str,
    roles: tuple[str, ...],
    customer_id: str | None,
    expire_time: datetime | None,
    display_name: str,
    identity: str | None,
) -> Caller:
    """The caller of a row; the same object for the same row, which the check of all open streams meets each time."""
    # A role that a newer version of Tidemark has added is not known here, and allows nothing.
    known = frozenset(Role(role) for role in roles if role in Role.__members__)
    return Caller(
        Organization(organization_id, name),
        key_id,
        known,
        customer_id or "",
        expire_time,
        display_name,
        identity or "",
    )
