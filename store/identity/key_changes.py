"""Changes of API keys that exist: other settings, a successor, and the time of their last use."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from store.identity.keys import KeySettings, columns_of, insert_key, settings_of
from store.identity.organizations import Organization
from store.tables.accounts import api_key, organization

_KEY = select(api_key, organization.c.name).join(
    organization, organization.c.organization_id == api_key.c.organization_id
)


@dataclass(frozen=True, slots=True)
class RotatedKey:
    """The successor of a key, and when the key itself expires."""

    key_id: str
    key: str = field(repr=False)
    settings: KeySettings
    predecessor_expire_time: datetime


async def update_key(
    connection: AsyncConnection, organization_name: str, key_id: str, changes: Mapping[str, Any]
) -> KeySettings | None:
    """Changes some settings of a key, and returns all of them.

    changes: new values by name of the field of KeySettings. Returns None if the organization has no such key, or it
    is revoked.
    """
    found = await _find(connection, organization_name, key_id)
    if found is None:
        return None
    before = settings_of(found)
    after = KeySettings(
        **{name: changes.get(name, getattr(before, name)) for name in KeySettings.__dataclass_fields__}
    )
    await connection.execute(update(api_key).where(api_key.c.key_id == key_id).values(**columns_of(after)))
    return after


async def rotate_key(
    connection: AsyncConnection, organization_name: str, key_id: str, now: datetime, overlap: timedelta
) -> RotatedKey | None:
    """Creates a key with the same settings, and has the old one expire after `overlap`, or earlier if it does anyway.

    A successor of a key that expires lasts as long from now on as the key did from its creation. Returns None if the
    organization has no such key, or it is revoked, expired or the identity of a client certificate.
    """
    found = await _find(connection, organization_name, key_id)
    if found is None or found.identity or (found.expire_time is not None and found.expire_time <= now):
        return None
    settings, end = settings_of(found), now + overlap
    if found.expire_time is not None:
        end = min(end, found.expire_time)
        settings = KeySettings(
            settings.roles,
            settings.customer_id,
            settings.display_name,
            now + (found.expire_time - found.create_time),
        )
    new_id, key = await insert_key(connection, Organization(found.organization_id, found.name), settings, now)
    await connection.execute(update(api_key).where(api_key.c.key_id == key_id).values(expire_time=end))
    return RotatedKey(new_id, key, settings, end)


async def note_uses(connection: AsyncConnection, uses: Mapping[str, datetime]) -> None:
    """Notes when each of these keys was used last; an earlier time than the stored one changes nothing."""
    latest = func.greatest(api_key.c.last_use_time, bindparam("used"))  # greatest() ignores NULL
    await connection.execute(
        update(api_key).where(api_key.c.key_id == bindparam("id")).values(last_use_time=latest),
        [{"id": key_id, "used": time} for key_id, time in sorted(uses.items())],
    )


async def _find(connection: AsyncConnection, organization_name: str, key_id: str) -> Any:
    """The row of a key that is not revoked, locked; None if the organization has none."""
    return (
        await connection.execute(
            _KEY.where(
                api_key.c.key_id == key_id, organization.c.name == organization_name, api_key.c.revoke_time.is_(None)
            ).with_for_update(of=api_key)
        )
    ).one_or_none()
