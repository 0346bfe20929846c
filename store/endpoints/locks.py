"""Locks on endpoint rows while the queue works on their deliveries, and on the fan-outs of an organization.

Each transaction of the queue locks endpoint rows before delivery rows, and several endpoint rows in the order of
their keys, or it skips those that are locked. So two transactions never wait for each other in a circle. When an
endpoint has to be disabled, its row gets a stronger lock, in the order of the keys, too, and then the fan-outs of its
organization are locked.
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
# Against fan-outs of the version before, which lock endpoint rows FOR KEY SHARE.
_LOCK_AGAINST_FAN_OUT = _LOCK_ENDPOINTS.format(strength="UPDATE").encode()

# The advisory locks of organizations on their fan-outs: the first half of each, the second is the organization.
#
# A fan-out does not lock the endpoint rows that it reads. Claims and results may update a row that is locked FOR KEY
# SHARE. But as long as that lock is held, PostgreSQL locks the new version of the row by way of the old one: it waits
# for the new version, in spite of SKIP LOCKED, and holds the lock of the old version meanwhile. Claims and results
# would wait for each other in a circle.
_FAN_OUTS = 0x7466
_LOCK_FAN_OUTS = """
SELECT {function}(%s, CAST(organization_id AS integer)) FROM unnest(CAST(%s AS bigint[])) AS organization_id
"""
_SHARE_FAN_OUTS = _LOCK_FAN_OUTS.format(function="pg_advisory_xact_lock_shared").encode()
_STOP_FAN_OUTS = _LOCK_FAN_OUTS.format(function="pg_advisory_xact_lock").encode()


async def lock(
    connection: DriverConnection, keys: Iterable[Key], *, against_fan_out: bool = False
) -> psycopg.AsyncCursor[Any]:
    """Locks endpoints in the order of their keys; `locked_rows` reads the answer, which may come later.

    against_fan_out: the endpoints get no new deliveries until the transaction ends.
    """
    ordered = sorted(set(keys))
    cursor = connection.cursor(row_factory=namedtuple_row)
    await cursor.execute(
        _LOCK_AGAINST_FAN_OUT if against_fan_out else _LOCK,
        {
            "organizations": "\t".join(str(key[0]) for key in ordered),
            "endpoints": "\t".join(key[1] for key in ordered),
        },
    )
    if against_fan_out:
        await stop_fan_outs(connection, {key[0] for key in ordered})
    return cursor


async def share_fan_outs(connection: DriverConnection, organization_ids: Iterable[int]) -> None:
    """Keeps the endpoints of organizations from being disabled until the transaction ends.

    A statement after this one reads which of them are enabled.
    """
    await connection.execute(_SHARE_FAN_OUTS, (_FAN_OUTS, sorted(organization_ids)))


async def stop_fan_outs(connection: DriverConnection, organization_ids: Iterable[int]) -> None:
    """Waits for the fan-outs of organizations that have begun, and stops new ones until the transaction ends.

    Then all deliveries to an endpoint exist when it is disabled and they are cancelled. One that was made later would
    wait forever.
    """
    await connection.execute(_STOP_FAN_OUTS, (_FAN_OUTS, sorted(organization_ids)))


async def locked_rows(cursor: psycopg.AsyncCursor[Any]) -> LockedRows:
    """The rows that `lock` found."""
    return {(row.organization_id, row.endpoint_id): row for row in await cursor.fetchall()}
