"""What ends soon: API keys that are in use, and quotas that are nearly used. Numbers only, of all organizations.

The cost grows with the keys that expire soon and with the organizations that have quotas, not with alerts, customers
or usage: the number of an organization's alerts is read where it is kept, and endpoints are at most 100 of each.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
from sqlalchemy import text

from runtime.quotas import QuotaKind, Quotas
from store.identity.quotas import FRESH
from store.postgres.database import Connection

KEY_SOON = timedelta(days=14)
KEY_PART = 5  # and the last fifth of its lifetime: keys that live for days are replaced often
KEY_IN_USE = timedelta(days=1)  # since its last use; a key that was replaced is used no more
MOST_COUNTED = 1_000  # keys
NEARLY = Decimal("0.8")  # of a quota


@dataclass(frozen=True)
class Ends:
    """What ends soon. keys: in use, that expire soon. nearly_used: organizations by the kind of the quota."""

    keys: int
    nearly_used: dict[QuotaKind, int]


_KEYS = text("""
SELECT count(*) FROM (
    SELECT FROM api_key
    WHERE revoke_time IS NULL AND expire_time > :now AND expire_time <= :now + :soon
        AND expire_time - :now <= (expire_time - create_time) / :part AND last_use_time > :now - :in_use
    LIMIT :most
) AS keys
""")

# The own quota of an organization, or else the default of the processes; a null is no limit.
_NEARLY_USED = text("""
WITH used AS (
    SELECT organization_id, kind, sum(number) AS number FROM quota_use, LATERAL (VALUES
        ('streams', streams::numeric), ('watchers', watchers::numeric),
        ('events_per_second', events_per_second::numeric), ('bytes_per_second', bytes_per_second::numeric)
    ) AS of (kind, number)
    WHERE update_time > clock_timestamp() - make_interval(secs => :fresh)
    GROUP BY organization_id, kind
    UNION ALL SELECT organization_id, 'alerts', alerts FROM alert_count
    UNION ALL SELECT organization_id, 'endpoints', count(*) FROM endpoint
    WHERE delete_time IS NULL AND (
        CAST(:defaults AS jsonb) ->> 'endpoints' IS NOT NULL OR organization_id IN (
            SELECT organization_id FROM organization_quota WHERE quotas ->> 'endpoints' IS NOT NULL
        )
    )
    GROUP BY organization_id
)
SELECT kind, count(*) AS number FROM used LEFT JOIN organization_quota q USING (organization_id), LATERAL (
    SELECT (CASE WHEN q.quotas ? kind THEN q.quotas ->> kind ELSE CAST(:defaults AS jsonb) ->> kind END)::numeric
) AS of_kind (quota)
WHERE number > 0 AND number >= quota * :share GROUP BY kind
""")


async def read(connection: Connection, defaults: Quotas, now: datetime) -> Ends:
    """What ends soon. defaults: quotas of organizations without own ones. now: by the clock of servers."""
    of_keys = {"now": now, "soon": KEY_SOON, "part": KEY_PART, "in_use": KEY_IN_USE, "most": MOST_COUNTED}
    keys = await connection.scalar(_KEYS, of_keys)
    of_quotas: dict[str, Any] = {
        "fresh": FRESH,
        "defaults": orjson.dumps({kind.value: limit for kind, limit in defaults.items()}).decode(),
        "share": NEARLY,
    }
    found: dict[str, int] = {row.kind: row.number for row in await connection.execute(_NEARLY_USED, of_quotas)}
    return Ends(int(keys or 0), {kind: found.get(kind.value, 0) for kind in QuotaKind})
