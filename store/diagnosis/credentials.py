"""API keys that expire, and the master keys with which stored secrets are encrypted."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from store.postgres.database import DriverConnection

SHOWN = 5


@dataclass(frozen=True)
class ExpiringKey:
    """An API key that expires soon, or has expired while it was in use."""

    organization: str
    key_id: str
    display_name: str
    expire_time: datetime
    last_use_time: datetime | None


_KEYS = """
SELECT o.name, k.key_id, k.display_name, k.expire_time, k.last_use_time
FROM api_key k JOIN organization o USING (organization_id)
WHERE k.revoke_time IS NULL AND k.expire_time > %(after)s AND k.expire_time <= %(before)s
ORDER BY k.expire_time LIMIT %(limit)s
"""


async def expiring_keys(connection: DriverConnection, after: datetime, before: datetime) -> list[ExpiringKey]:
    """The keys that expire in that time, and one more than SHOWN if there are more."""
    cursor = await connection.execute(_KEYS, {"after": after, "before": before, "limit": SHOWN + 1})
    return [ExpiringKey(*row) for row in await cursor.fetchall()]


async def has_keys(connection: DriverConnection) -> bool:
    """Whether an API key was ever created."""
    row = await (await connection.execute("SELECT EXISTS (SELECT FROM api_key)")).fetchone()
    return bool(row and row[0])


@dataclass(frozen=True)
class StoredSecrets:
    """How many secrets and credentials no given master key opens, by the id of their key; and how many are plain."""

    without_key: dict[str, int]
    in_plain_text: int
    number: int


_SECRETS = """
SELECT key_id, count(*) FROM (
    SELECT key_id FROM endpoint_secret s WHERE EXISTS (
        SELECT FROM endpoint e WHERE e.organization_id = s.organization_id AND e.endpoint_id = s.endpoint_id
            AND e.delete_time IS NULL
    )
    UNION ALL SELECT credentials_key_id FROM endpoint WHERE credentials IS NOT NULL AND delete_time IS NULL
) AS sealed GROUP BY key_id
"""


async def stored_secrets(connection: DriverConnection, key_ids: Collection[str]) -> StoredSecrets:
    """The secrets of endpoints that exist. key_ids: of the given master keys."""
    found: dict[str | None, int] = dict(await (await connection.execute(_SECRETS)).fetchall())
    plain = found.pop(None, 0)
    missing = {key_id: number for key_id, number in found.items() if key_id is not None and key_id not in key_ids}
    return StoredSecrets(missing, plain, sum(found.values()) + plain)
