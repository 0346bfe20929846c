"""How much usage an organization sends at present, and what it is notified of: bounded reads for an overview."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from store.postgres.database import Connection, driver

MOST_NOTIFICATIONS = 100_000  # that are counted
MOST_WAITING = 10_000  # deliveries that are counted
WRITTEN_TOGETHER = 5_000  # rows of one statement
HOURS = 24


@dataclass(slots=True)
class Counted:
    """What one process has counted for an organization in one interval. wait: seconds of all its events together."""

    events: int = 0
    transitions: int = 0
    wait: float = 0.0


@dataclass(frozen=True)
class Hour:
    """How many notifications were created in an hour."""

    start: datetime
    reached: int
    resolved: int
    other: int


@dataclass(frozen=True)
class Waiting:
    """Deliveries that wait. oldest_due: since when the oldest due one waits, by the database's clock."""

    count: int
    oldest_due: datetime | None


# A process repeats a write that it does not know to have arrived: the same numbers again.
_WRITE = b"""
INSERT INTO usage_activity (organization_id, interval_start, process_id, events, transitions, wait_seconds)
SELECT organization_id, interval_start, %(process)s, events, transitions, wait_seconds
FROM unnest(
    %(organizations)s::bigint[], %(starts)s::timestamptz[], %(events)s::bigint[], %(transitions)s::bigint[],
    %(waits)s::double precision[]
) AS counted (organization_id, interval_start, events, transitions, wait_seconds)
ORDER BY organization_id, interval_start
ON CONFLICT (organization_id, interval_start, process_id) DO UPDATE SET
    events = excluded.events, transitions = excluded.transitions, wait_seconds = excluded.wait_seconds
"""

# All processes delete the rows of all. A row that another one deletes is left to it: they do not wait for each other.
_FORGET = b"""
DELETE FROM usage_activity WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM usage_activity WHERE interval_start < %(forget)s FOR UPDATE SKIP LOCKED
))
"""

_READ = b"""
SELECT interval_start, sum(events)::bigint, sum(transitions)::bigint, sum(wait_seconds)
FROM usage_activity
WHERE organization_id = %(organization_id)s AND interval_start >= %(start)s AND interval_start < %(end)s
GROUP BY interval_start
"""

_NOTIFICATIONS = b"""
SELECT date_bin('1 hour', create_time, %(start)s), count(*) FILTER (WHERE event_type = 'alert.reached'),
    count(*) FILTER (WHERE event_type = 'alert.resolved'), count(*)
FROM (
    SELECT create_time, event_type FROM notification
    WHERE organization_id = %(organization_id)s AND create_time >= %(start)s AND create_time < %(end)s
    ORDER BY create_time DESC LIMIT %(most)s
) AS latest
GROUP BY 1
"""

_WAITING = b"""
SELECT count(*), min(first_due) FROM (
    SELECT CASE WHEN d.next_attempt_time <= clock_timestamp() THEN d.next_attempt_time END AS first_due
    FROM endpoint e
    CROSS JOIN LATERAL (
        SELECT next_attempt_time FROM delivery_live
        WHERE organization_id = e.organization_id AND endpoint_id = e.endpoint_id AND next_attempt_time IS NOT NULL
        ORDER BY organization_id, endpoint_id, next_attempt_time
        LIMIT %(most)s
    ) AS d
    WHERE e.organization_id = %(organization_id)s AND e.delete_time IS NULL
    LIMIT %(most)s
) AS waiting
"""


async def write(
    connection: Connection, process_id: str, counted: Mapping[tuple[int, datetime], Counted], forget: datetime | None
) -> None:
    """Writes what this process has counted, by organization and interval; deletes what is older than `forget`."""
    raw = await driver(connection)
    rows = list(counted.items())
    for first in range(0, len(rows), WRITTEN_TOGETHER):
        part = rows[first : first + WRITTEN_TOGETHER]
        await raw.execute(
            _WRITE,
            {
                "process": process_id,
                "organizations": [organization_id for (organization_id, _), _ in part],
                "starts": [start for (_, start), _ in part],
                "events": [one.events for _, one in part],
                "transitions": [one.transitions for _, one in part],
                "waits": [one.wait for _, one in part],
            },
        )
    if forget is not None:
        await raw.execute(_FORGET, {"forget": forget})


async def read(
    connection: Connection, organization_id: int, start: datetime, end: datetime
) -> dict[datetime, Counted]:
    """What all processes have counted, by the start of the interval, of the intervals that begin in [start, end)."""
    raw = await driver(connection)
    cursor = await raw.execute(_READ, {"organization_id": organization_id, "start": start, "end": end})
    return {row[0]: Counted(row[1], row[2], row[3]) for row in await cursor.fetchall()}


async def notifications(connection: Connection, organization_id: int, now: datetime) -> tuple[list[Hour], bool]:
    """The notifications of the last 24 hours, the present one included, by hour; and whether there were too many.

    Of more than MOST_NOTIFICATIONS the latest are counted.
    """
    raw = await driver(connection)
    this_hour = now.replace(minute=0, second=0, microsecond=0)
    first = this_hour - timedelta(hours=HOURS - 1)
    cursor = await raw.execute(
        _NOTIFICATIONS,
        {
            "organization_id": organization_id,
            "start": first,
            "end": this_hour + timedelta(hours=1),
            "most": MOST_NOTIFICATIONS,
        },
    )
    found = {row[0]: row[1:] for row in await cursor.fetchall()}
    hours = []
    for number in range(HOURS):
        start = first + timedelta(hours=number)
        reached, resolved, every = found.get(start, (0, 0, 0))
        hours.append(Hour(start, reached, resolved, every - reached - resolved))
    total = sum(row[2] for row in found.values())
    return hours, total >= MOST_NOTIFICATIONS


async def waiting(connection: Connection, organization_id: int) -> Waiting:
    """The deliveries of an organization that wait for an attempt; MOST_WAITING means that many or more."""
    raw = await driver(connection)
    cursor = await raw.execute(_WAITING, {"organization_id": organization_id, "most": MOST_WAITING})
    row = await cursor.fetchone()
    assert row is not None, "an aggregate is one row"
    return Waiting(row[0], row[1])
