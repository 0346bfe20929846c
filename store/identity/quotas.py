"""Quotas: those that organizations have of their own, and what the processes say that they use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.quotas import QuotaKind, Quotas
from store.postgres.database import driver
from store.tables.quotas import organization_quota, quota_use

FRESH = 5.0  # seconds after which a process that says nothing counts as ended
# Seconds for which a change of a quota is read again: a change that was committed late has an older time.
OVERLAP = timedelta(seconds=60)


class QuotaReached(Exception):
    """The organization has or does as much of something as its quota allows.

    retry_after: seconds after which the same request can succeed; None: time alone does not help.
    """

    def __init__(self, kind: QuotaKind, limit: int, retry_after: float | None = None) -> None:
        super().__init__(kind, limit)
        self.kind = kind
        self.limit = limit
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Use:
    """What processes use of an organization's quotas; rates are those of the last second or so."""

    streams: int = 0
    watchers: int = 0
    events_per_second: float = 0.0
    bytes_per_second: float = 0.0


@dataclass(frozen=True, slots=True)
class OthersUse:
    """What all other processes use. taking: how many of them take events or bytes."""

    use: Use = Use()
    taking: int = 0


@dataclass(frozen=True, slots=True)
class ChangedQuotas:
    """The own quotas of an organization, and when they were changed."""

    organization_id: int
    quotas: Quotas
    update_time: datetime


async def read_changed(connection: AsyncConnection, since: datetime | None) -> list[ChangedQuotas]:
    """The own quotas that were changed at about `since` or later; None: of all organizations that ever had some."""
    statement = select(organization_quota)
    if since is not None:
        statement = statement.where(organization_quota.c.update_time > since - OVERLAP)
    return [
        ChangedQuotas(row.organization_id, _quotas(row.quotas), row.update_time)
        for row in await connection.execute(statement)
    ]


async def own(connection: AsyncConnection, organization_id: int) -> Quotas:
    """The own quotas of an organization."""
    found = await connection.scalar(
        select(organization_quota.c.quotas).where(organization_quota.c.organization_id == organization_id)
    )
    return _quotas(found or {})


async def change(
    connection: AsyncConnection,
    organization_id: int,
    values: Quotas,
    defaults: Sequence[QuotaKind] = (),
) -> Quotas:
    """Sets some own quotas, and removes those of `defaults`; returns all own ones. Servers follow in seconds."""
    table = organization_quota.c
    new = {kind.value: limit for kind, limit in values.items()}
    statement = insert(organization_quota).values(
        organization_id=organization_id, quotas=new, update_time=func.clock_timestamp()
    )
    merged = table.quotas.op("||")(statement.excluded.quotas)
    for kind in defaults:
        merged = merged.op("-")(kind.value)
    saved = await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["organization_id"], set_={"quotas": merged, "update_time": statement.excluded.update_time}
        ).returning(table.quotas)
    )
    return _quotas(saved.scalar_one())


# Writes what this process uses, and reads what the others use.
_EXCHANGE = b"""
WITH mine AS (
    SELECT * FROM unnest(
        %(organizations)s::bigint[], %(streams)s::bigint[], %(watchers)s::bigint[], %(events)s::double precision[],
        %(bytes)s::double precision[]
    ) AS mine (organization_id, streams, watchers, events_per_second, bytes_per_second)
), written AS (
    INSERT INTO quota_use (
        organization_id, process_id, streams, watchers, events_per_second, bytes_per_second, update_time
    )
    SELECT organization_id, %(process)s, streams, watchers, events_per_second, bytes_per_second, clock_timestamp()
    FROM mine
    ORDER BY organization_id
    ON CONFLICT (organization_id, process_id) DO UPDATE SET
        streams = excluded.streams, watchers = excluded.watchers, events_per_second = excluded.events_per_second,
        bytes_per_second = excluded.bytes_per_second, update_time = excluded.update_time
)
SELECT organization_id, sum(u.streams)::bigint, sum(u.watchers)::bigint, sum(u.events_per_second),
       sum(u.bytes_per_second), count(*) FILTER (WHERE u.events_per_second > 0 OR u.bytes_per_second > 0)
FROM mine JOIN quota_use u USING (organization_id)
WHERE u.process_id <> %(process)s AND u.update_time > clock_timestamp() - make_interval(secs => %(fresh)s)
GROUP BY organization_id
"""


async def exchange(
    connection: AsyncConnection, process_id: str, uses: Mapping[int, Use], *, fresh: float = FRESH
) -> dict[int, OthersUse]:
    """Says what this process uses of the quotas of organizations; returns what the others use of the same ones."""
    cursor = await (await driver(connection)).execute(
        _EXCHANGE,
        {
            "process": process_id,
            "fresh": fresh,
            "organizations": list(uses),
            "streams": [use.streams for use in uses.values()],
            "watchers": [use.watchers for use in uses.values()],
            "events": [use.events_per_second for use in uses.values()],
            "bytes": [use.bytes_per_second for use in uses.values()],
        },
    )
    return {row[0]: OthersUse(Use(row[1], row[2], row[3], row[4]), row[5]) for row in await cursor.fetchall()}


async def forget_ended(connection: AsyncConnection, *, fresh: float = FRESH) -> None:
    """Deletes what processes said that have ended."""
    oldest = func.clock_timestamp() - timedelta(seconds=10 * fresh)
    await connection.execute(delete(quota_use).where(quota_use.c.update_time < oldest))


def _quotas(stored: Mapping[str, Any]) -> Quotas:
    """The quotas of the kinds that this version knows."""
    known = QuotaKind.__members__.values()
    return {kind: None if stored[kind] is None else int(stored[kind]) for kind in known if kind in stored}
