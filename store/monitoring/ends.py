"""What ends soon: API keys that are in use, and quotas that are nearly used. Numbers only, of all organizations.

The cost grows with the keys that expire soon and with the organizations that have quotas, not with alerts, customers
or usage: the number of an organization's alerts is read where it is kept, and endpoints are at most 100 of each.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text

from runtime.quotas import QuotaKind, Quotas
from store.identity.quotas import FRESH
from store.postgres.database import Connection

KEY_SOON = timedelta(days=14)
KEY_PART = 5  # and the last fifth of its lifetime: keys that live for days are replaced often
KEY_IN_USE = timedelta(days=1)  # since its last use; a key that was replaced is used no more
MOST_COUNTED = 1_000  # keys
NEARLY = 0.8  # of a quota


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


def _nearly_used(kind: QuotaKind, number: str) -> str:
    """How many rows use most of a quota: the organization's own one, or else the default. A null is no limit."""
    own, default = f"q.quotas ->> '{kind.value}'", f"CAST(:{kind.value} AS double precision)"
    quota = f"CASE WHEN q.quotas ? '{kind.value}' THEN CAST({own} AS double precision) ELSE {default} END"
    return f"count(*) FILTER (WHERE {number} > 0 AND {number} >= {NEARLY} * {quota}) AS {kind.value}"


_EXCHANGED = (QuotaKind.STREAMS, QuotaKind.WATCHERS, QuotaKind.EVENTS_PER_SECOND, QuotaKind.BYTES_PER_SECOND)
# Each part joins the quotas of an organization once.
_NEARLY_USED = text(f"""
WITH in_use AS (
    SELECT organization_id, {", ".join(f"sum({one.value}) AS {one.value}" for one in _EXCHANGED)}
    FROM quota_use WHERE update_time > clock_timestamp() - make_interval(secs => :fresh) GROUP BY organization_id
), exchanged AS (
    SELECT {", ".join(_nearly_used(one, one.value) for one in _EXCHANGED)}
    FROM in_use LEFT JOIN organization_quota q USING (organization_id)
), of_alerts AS (
    SELECT {_nearly_used(QuotaKind.ALERTS, "c.alerts")}
    FROM alert_count c LEFT JOIN organization_quota q USING (organization_id)
), endpoints AS (
    SELECT organization_id, count(*) AS number FROM endpoint
    WHERE delete_time IS NULL AND (
        CAST(:endpoints AS double precision) IS NOT NULL OR organization_id IN (
            SELECT organization_id FROM organization_quota WHERE quotas ->> 'endpoints' IS NOT NULL
        )
    )
    GROUP BY organization_id
), of_endpoints AS (
    SELECT {_nearly_used(QuotaKind.ENDPOINTS, "e.number")}
    FROM endpoints e LEFT JOIN organization_quota q USING (organization_id)
)
SELECT * FROM exchanged, of_alerts, of_endpoints
""")


async def read(connection: Connection, defaults: Quotas, now: datetime) -> Ends:
    """What ends soon. defaults: quotas of organizations without own ones. now: by the clock of servers."""
    of_keys = {"now": now, "soon": KEY_SOON, "part": KEY_PART, "in_use": KEY_IN_USE, "most": MOST_COUNTED}
    keys = await connection.scalar(_KEYS, of_keys)
    of_quotas = {kind.value: defaults.get(kind) for kind in QuotaKind}
    found = (await connection.execute(_NEARLY_USED, {"fresh": FRESH, **of_quotas})).one()
    return Ends(int(keys or 0), {kind: found._mapping[kind.value] for kind in QuotaKind})
