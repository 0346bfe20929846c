"""Webhook endpoints that fail or were disabled, with the last error of each."""

from dataclasses import dataclass
from datetime import datetime

from store.postgres.database import DriverConnection

SHOWN = 5


@dataclass(frozen=True)
class TroubledEndpoint:
    """An endpoint that fails or was disabled. error: of the last attempt of its oldest waiting or last delivery."""

    organization: str
    endpoint_id: str
    since: datetime | None
    failures: int
    disable_reason: str | None
    error: str


# The error comes from the first waiting delivery of the endpoint, which is found by the key of the queue. An endpoint
# whose deliveries were all cancelled has none.
_ERROR = """
LEFT JOIN LATERAL (
    SELECT delivery_id FROM delivery_live d
    WHERE d.organization_id = e.organization_id AND d.endpoint_id = e.endpoint_id AND d.next_attempt_time IS NOT NULL
    ORDER BY d.next_attempt_time LIMIT 1
) AS waiting ON true
LEFT JOIN LATERAL (
    SELECT coalesce(nullif(a.error, ''), 'it answered ' || a.http_status) AS text FROM attempt a
    WHERE a.organization_id = e.organization_id AND a.delivery_id = waiting.delivery_id
    ORDER BY a.attempt_number DESC LIMIT 1
) AS last ON true
"""
_FAILING = f"""
SELECT o.name, e.endpoint_id, e.failing_since, e.failure_count, e.disable_reason, coalesce(last.text, '')
FROM (
    SELECT * FROM endpoint WHERE failing_since IS NOT NULL AND state = 'ENABLED' AND delete_time IS NULL
    ORDER BY failing_since LIMIT %(limit)s
) AS e JOIN organization o USING (organization_id)
{_ERROR}
ORDER BY e.failing_since
"""
_DISABLED = """
SELECT o.name, e.endpoint_id, e.failing_since, e.failure_count, e.disable_reason, ''
FROM (
    SELECT * FROM endpoint WHERE disable_reason IN ('GONE', 'FAILING') AND delete_time IS NULL
    ORDER BY update_time DESC NULLS LAST LIMIT %(limit)s
) AS e JOIN organization o USING (organization_id)
"""


async def failing(connection: DriverConnection) -> list[TroubledEndpoint]:
    """The enabled endpoints that have failed for longest, and one more than SHOWN if there are more."""
    return await _found(connection, _FAILING)


async def disabled(connection: DriverConnection) -> list[TroubledEndpoint]:
    """Endpoints that Tidemark disabled, and one more than SHOWN if there are more."""
    return await _found(connection, _DISABLED)


async def _found(connection: DriverConnection, query: str) -> list[TroubledEndpoint]:
    cursor = await connection.execute(query.encode(), {"limit": SHOWN + 1})
    return [TroubledEndpoint(*row) for row in await cursor.fetchall()]
