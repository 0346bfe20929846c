"""The health of endpoints in the database: read from locked rows, judged by `webhooks.health`, and written back."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.audit import json_states, writing
from store.audit.entries import NOTIFIER, Changed, NewEntry, ResourceType
from store.endpoints.lifecycle import disable
from store.endpoints.locks import LockedRows, lock
from store.endpoints.rows import EndpointState
from store.notifications import operator_events
from store.postgres.database import driver
from webhooks.health import BreakerState, Health, HealthSample, Key, judge

# The columns that _SET_HEALTH writes. The owner's limit is only read, and `lifecycle.disable` writes the reason.
_COLUMNS = [field.name for field in fields(Health) if field.name not in ("max_in_flight", "disable_reason")]

# Stores the health of endpoints after a batch of results.
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


async def update_health(
    connection: AsyncConnection,
    rows: LockedRows,
    samples: Sequence[tuple[Key, HealthSample]],
    randomness: random.Random,
) -> None:
    """Writes the health of locked endpoints after `samples`, in their order, and the operator events that follow.

    Disables the endpoints that have to be disabled.
    """
    if not samples or not rows:
        return
    sampled = {key for key, _ in samples}
    before = {key: _health(row) for key, row in rows.items() if key in sampled and row.state == EndpointState.ENABLED}
    now = next(iter(rows.values())).now
    judgement = judge(before, samples, now, randomness)
    if judgement.changed:
        await _write(connection, judgement.changed)
    if to_disable := judgement.to_disable:
        await lock(await driver(connection), to_disable, against_fan_out=True)
        for (organization_id, endpoint_id), reason in to_disable.items():
            await disable(connection, organization_id, endpoint_id, reason=reason)
            changed = Changed(
                ResourceType.ENDPOINT,
                endpoint_id,
                before=json_states.endpoint_enabled(endpoint_id),
                after=json_states.endpoint_disabled(endpoint_id, reason.value),
            )
            await writing.write(await driver(connection), organization_id, [NewEntry(NOTIFIER, changed)], now)
    if judgement.events:
        await operator_events.add(connection, judgement.events, now)


async def _write(connection: AsyncConnection, changed: Mapping[Key, Health]) -> None:
    await connection.execute(
        _SET_HEALTH,
        {
            "organizations": [key[0] for key in changed],
            "endpoints": [key[1] for key in changed],
            **{name: [getattr(health, name) for health in changed.values()] for name in _COLUMNS},
        },
    )


def _health(row: Any) -> Health:
    columns = {name: getattr(row, name) for name in _COLUMNS}
    return Health(max_in_flight=row.max_in_flight, **{**columns, "breaker_state": BreakerState(row.breaker_state)})
