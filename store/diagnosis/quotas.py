"""How near organizations are to their quotas, by what the processes say that they use."""

from dataclasses import dataclass
from decimal import Decimal

import orjson

from runtime.quotas import Quotas
from store.identity.quotas import FRESH
from store.postgres.database import DriverConnection

SHOWN = 5
COUNTED = 10_000  # alerts of an organization that has created none since it got its quota: no number of them is kept


@dataclass(frozen=True)
class UsedQuota:
    """A quota of an organization, and how much of it is used. kind: of QuotaKind."""

    organization: str
    kind: str
    used: Decimal
    limit: int


# The own quota of an organization, or else the default of the processes; a null is no limit.
_USED = """
WITH used AS (
    SELECT organization_id, kind, sum(number) AS number FROM quota_use, LATERAL (VALUES
        ('streams', streams::numeric), ('watchers', watchers::numeric),
        ('events_per_second', events_per_second::numeric), ('bytes_per_second', bytes_per_second::numeric)
    ) AS of (kind, number)
    WHERE update_time > clock_timestamp() - make_interval(secs => %(fresh)s)
    GROUP BY organization_id, kind
    UNION ALL SELECT organization_id, 'alerts', alerts FROM alert_count
    UNION ALL SELECT q.organization_id, 'alerts', (SELECT count(*) FROM (
        SELECT FROM alert a WHERE a.organization_id = q.organization_id AND a.state <> 'ARCHIVED' LIMIT %(counted)s
    ) AS counted) FROM organization_quota q
    WHERE q.quotas ->> 'alerts' IS NOT NULL
    AND NOT EXISTS (SELECT FROM alert_count c WHERE c.organization_id = q.organization_id)
    UNION ALL SELECT q.organization_id, 'endpoints', (
        SELECT count(*) FROM endpoint e WHERE e.organization_id = q.organization_id AND e.delete_time IS NULL
    ) FROM organization_quota q WHERE q.quotas ->> 'endpoints' IS NOT NULL
), limited AS (
    SELECT organization_id, kind, number, (CASE WHEN q.quotas ? kind THEN q.quotas ->> kind
        ELSE %(defaults)s::jsonb ->> kind END)::numeric AS quota
    FROM used LEFT JOIN organization_quota q USING (organization_id)
)
SELECT o.name, kind, round(number), quota::bigint FROM limited JOIN organization o USING (organization_id)
WHERE number > 0 AND number >= quota * %(share)s ORDER BY number / greatest(quota, 1) DESC LIMIT %(limit)s
"""


async def nearly_used(connection: DriverConnection, defaults: Quotas, share: Decimal) -> list[UsedQuota]:
    """The quotas of which at least that share is used, and one more than SHOWN if there are more.

    defaults: of organizations without own ones.
    """
    cursor = await connection.execute(
        _USED,
        {
            "fresh": FRESH,
            "defaults": orjson.dumps({kind.value: limit for kind, limit in defaults.items()}).decode(),
            "share": share,
            "limit": SHOWN + 1,
            "counted": COUNTED,
        },
    )
    return [UsedQuota(*row) for row in await cursor.fetchall()]
