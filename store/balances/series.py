"""How a balance has moved, from the latest entries of its ledger."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from store.postgres.database import Connection, driver

MAX_ENTRIES = 100_000  # that are read


@dataclass(frozen=True)
class LatestEntries:
    """The sums of the entries of each interval.

    amounts: by the number of the interval. drawn: of all entries of usage, negative. oldest: of the entries that were
    read; None without any. is_truncated: the ledger has earlier ones that were not read.
    """

    amounts: Mapping[int, Decimal]
    drawn: Decimal
    oldest: datetime | None
    is_truncated: bool


# The entries before the first interval have a negative number. They are read, so that the cost has a bound.
_READ = b"""
SELECT greatest(floor(extract(epoch FROM create_time - %(start)s) / %(width)s), -1)::integer, sum(amount),
    coalesce(sum(amount) FILTER (WHERE entry_type IN ('DRAW', 'GIVE_BACK', 'USAGE_VOID')), 0), count(*),
    min(create_time)
FROM (
    SELECT create_time, amount, entry_type FROM balance_entry
    WHERE organization_id = %(organization_id)s AND customer_id = %(customer_id)s AND balance_id = %(balance_id)s
    ORDER BY entry_number DESC LIMIT %(limit)s
) AS latest
GROUP BY 1
"""


async def latest_entries(
    connection: Connection, organization_id: int, customer_id: str, balance_id: str, start: datetime, width: timedelta
) -> LatestEntries:
    """The latest entries, in intervals of `width` from `start`."""
    cursor = await (await driver(connection)).execute(
        _READ,
        {
            "organization_id": organization_id,
            "customer_id": customer_id,
            "balance_id": balance_id,
            "start": start,
            "width": width.total_seconds(),
            "limit": MAX_ENTRIES,
        },
    )
    rows = await cursor.fetchall()
    read, oldest = sum(row[3] for row in rows), min((row[4] for row in rows), default=None)
    return LatestEntries(
        amounts={row[0]: row[1] for row in rows if row[0] >= 0},
        drawn=sum((row[2] for row in rows if row[0] >= 0), Decimal(0)),
        oldest=oldest,
        is_truncated=read >= MAX_ENTRIES and oldest is not None and oldest > start,
    )
