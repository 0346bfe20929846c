"""Locks on endpoint rows while the queue works on their deliveries.

Each transaction of the queue locks endpoint rows before delivery rows, and several endpoint rows in the order of
their keys, or it skips those that are locked. So two transactions never wait for each other in a circle. When an
endpoint has to be disabled its lock becomes stronger, in the order of the keys, too.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

from store.postgres.database import DriverConnection
from webhooks.health import Key

LockedRows = Mapping[Key, Any]  # rows of _LOCK

_LOCK_ENDPOINTS = """
SELECT organization_id, endpoint_id, state, max_in_flight, not_before, throttle_count, breaker_state, breaker_until,
       breaker_failures, breaker_openings, breaker_window, failing_since, failure_count, last_success_time,
       warned_percent, exhaustion_noted, now() AS now
FROM endpoint
JOIN unnest(string_to_array(%(organizations)s, E'\t')::bigint[], string_to_array(%(endpoints)s, E'\t'))
    AS wanted (organization_id, endpoint_id)
USING (organization_id, endpoint_id)
ORDER BY organization_id, endpoint_id
FOR {strength} OF endpoint
"""
_LOCK = _LOCK_ENDPOINTS.format(strength="NO KEY UPDATE").encode()
# Keeps a fan-out from adding deliveries to an endpoint that is being disabled; see `switches.delete_endpoint`.
_LOCK_AGAINST_FAN_OUT = _LOCK_ENDPOINTS.format(strength="UPDATE").encode()


async def lock(
    connection: DriverConnection, keys: Iterable[Key], *, against_fan_out: bool = False
) -> psycopg.AsyncCursor[Any]:
    """Locks endpoints in the order of their keys; `locked_rows` reads the answer, which may come later."""
    ordered = sorted(set(keys))
    cursor = connection.cursor(row_factory=namedtuple_row)
    await cursor.execute(
        _LOCK_AGAINST_FAN_OUT if against_fan_out else _LOCK,
        {
            "organizations": "\t".join(str(key[0]) for key in ordered),
            "endpoints": "\t".join(key[1] for key in ordered),
        },
    )
    return cursor


async def locked_rows(cursor: psycopg.AsyncCursor[Any]) -> LockedRows:
    """The rows that `lock` found."""
    return {(row.organization_id, row.endpoint_id): row for row in await cursor.fetchall()}
