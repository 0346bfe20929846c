"""Endpoints under lock while results are written: what is known of them, and what the results say about their health.

Every transaction of the queue locks endpoint rows before delivery rows, and several endpoint rows in the order of
their keys, or skips those that are locked: so none can wait for another in a circle. A lock that has to become
stronger, because its endpoint is disabled, does so in that order too.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.endpoints.rows import EndpointState
from store.endpoints.switches import disable
from store.notifications import operator_events
from store.postgres.database import DriverConnection, driver
from webhooks.health import BreakerState, Finding, Health, Verdict
from webhooks.operator_events import OperatorEvent

Key = tuple[int, str]  # organization_id, endpoint_id
Locked = Mapping[Key, Any]  # rows of _LOCK

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
# Keeps a fan-out from adding rows for an endpoint that is being disabled; see store.endpoint_switches.
_LOCK_AGAINST_FAN_OUT = _LOCK_ENDPOINTS.format(strength="UPDATE").encode()

_SET_HEALTH = text("""
UPDATE endpoint
SET not_before = health.not_before,
    throttle_count = health.throttle_count,
    breaker_state = health.breaker_state,
    breaker_until = health.breaker_until,
    breaker_failures = health.breaker_failures,
    breaker_openings = health.breaker_openings,
    breaker_window = health.breaker_window,
    failing_since = health.failing_since,
    failure_count = health.failure_count,
    last_success_time = health.last_success_time,
    warned_percent = health.warned_percent,
    exhaustion_noted = health.exhaustion_noted
FROM unnest(
    CAST(:organizations AS bigint[]), CAST(:endpoints AS text[]), CAST(:not_before AS timestamptz[]),
    CAST(:throttle_count AS integer[]), CAST(:breaker_state AS text[]), CAST(:breaker_until AS timestamptz[]),
    CAST(:breaker_failures AS integer[]), CAST(:breaker_openings AS integer[]), CAST(:breaker_window AS integer[]),
    CAST(:failing_since AS timestamptz[]), CAST(:failure_count AS integer[]),
    CAST(:last_success_time AS timestamptz[]), CAST(:warned_percent AS integer[]),
    CAST(:exhaustion_noted AS boolean[])
) AS health (organization_id, endpoint_id, not_before, throttle_count, breaker_state, breaker_until,
             breaker_failures, breaker_openings, breaker_window, failing_since, failure_count, last_success_time,
             warned_percent, exhaustion_noted)
WHERE endpoint.organization_id = health.organization_id AND endpoint.endpoint_id = health.endpoint_id
""")
# What _SET_HEALTH writes; the owner's limit is only read, and disabling is another statement's matter.
_HEALTH_COLUMNS = [field.name for field in fields(Health) if field.name not in ("max_in_flight", "disable_reason")]


async def lock(
    connection: DriverConnection, keys: Iterable[Key], *, against_fan_out: bool = False
) -> psycopg.AsyncCursor[Any]:
    """Locks endpoints in the order of their keys; the answer, which `locked` reads, may come later."""
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


async def locked(cursor: psycopg.AsyncCursor[Any]) -> Locked:
    """What `lock` found."""
    return {(row.organization_id, row.endpoint_id): row for row in await cursor.fetchall()}


async def judge(
    connection: AsyncConnection,
    endpoints: Locked,
    findings: Sequence[tuple[Key, Finding]],
    randomness: random.Random,
) -> None:
    """Brings the health of locked endpoints up to date after `findings`, in their order; disables what has to be."""
    before: dict[Key, Health] = {}
    judged: dict[Key, Health] = {}
    well: set[Key] = set()  # where one more success changes nothing
    events = []
    for key, finding in findings:
        succeeded = finding.verdict is Verdict.SUCCEEDED
        if succeeded and key in well:
            continue
        row = endpoints.get(key)
        if row is None or row.state != EndpointState.ENABLED:
            continue
        if key not in judged:
            judged[key] = before[key] = _health(row)
        health, notices = judged[key].after(finding, row.now, randomness)
        if not succeeded:
            well.discard(key)
        elif health is judged[key]:
            well.add(key)
        judged[key] = health
        events += [OperatorEvent(*key, notice) for notice in notices]
    changed = {key: health for key, health in sorted(judged.items()) if health != before[key]}
    if changed:
        await connection.execute(
            _SET_HEALTH,
            {
                "organizations": [key[0] for key in changed],
                "endpoints": [key[1] for key in changed],
                **{name: [getattr(health, name) for health in changed.values()] for name in _HEALTH_COLUMNS},
            },
        )
    disabled = {key: health for key, health in changed.items() if health.disable_reason is not None}
    if disabled:
        await lock(await driver(connection), disabled, against_fan_out=True)
        for (organization_id, endpoint_id), health in disabled.items():
            assert health.disable_reason is not None
            await disable(connection, organization_id, endpoint_id, reason=health.disable_reason)
    if events:
        await operator_events.add(connection, events, next(iter(endpoints.values())).now)


def _health(row: Any) -> Health:
    columns = {name: getattr(row, name) for name in _HEALTH_COLUMNS}
    return Health(max_in_flight=row.max_in_flight, **{**columns, "breaker_state": BreakerState(row.breaker_state)})
