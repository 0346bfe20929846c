"""Drawdown: reads the segments that usage can draw on, and stores what it drew and holds, for many customers at once.

The transaction must hold the wallets of the customers.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from evaluator.balances import Holding, HoldingSegment
from evaluator.drawdown import Source
from store.balances.entries import EntryType
from store.balances.entry_numbers import next_numbers
from store.balances.holdings import holding_from
from store.balances.overages import OverageState
from store.postgres.database import Cursor, DriverConnection, Row
from store.postgres.distributed import Forms, on_cluster


@dataclass(eq=False, slots=True)
class Drawable:
    """A segment of a customer that usage draws on, and its balance.

    gives: usage can draw on it; else only what is held of it is drawn. counts: alerts and the ledger count it: it is
    in the last put, and its balance is not voided.
    """

    customer_id: str
    holding: Holding
    source: Source
    gives: bool = True
    counts: bool = True


# The columns of a balance and one of its segments, as `drawable_from` reads them.
COLUMNS = """
SELECT b.customer_id, b.balance_id, b.kind, b.currency, b.metric_id, b.custom_fields, b.contract_custom_fields,
       b.credit_grant_type, b.seat_group_key, b.seat_group_value, b.license_type,
       s.segment_number, s.amount + s.adjusted, s.drawn, s.start_time, s.end_time, s.held,
       b.priority, b.allow_overage, b.draw_down_metric_ids
"""
_COLUMN_COUNT = 20

# The segments that are usable in the time of the usage. Exhausted ones are read only if usage gives something back.
_USABLE_SEGMENTS = """
JOIN balance_segment s ON s.organization_id = b.organization_id AND s.customer_id = b.customer_id
    AND s.balance_id = b.balance_id
WHERE b.draw_down AND b.void_time IS NULL AND NOT s.removed
    AND s.start_time <= i.until_time AND (s.end_time IS NULL OR s.end_time > i.from_time)
    AND (%(exhausted)s OR b.allow_overage OR s.amount + s.adjusted > s.drawn + s.held)
    {shards}
"""
_OF_BALANCES = "b.customer_id = ANY(%(customer_ids)s)"

# The customers' balances of no seat, in the units of their usage.
_POOLED_BALANCES = """
FROM unnest(
    %(customer_ids)s::text[], %(froms)s::timestamptz[], %(untils)s::timestamptz[], %(units)s::text[],
    %(amounts)s::numeric[]
) AS i (customer_id, from_time, until_time, unit, amount)
JOIN balance b ON b.organization_id = %(organization_id)s AND b.customer_id = i.customer_id COLLATE "C"
    AND b.seat_group_key IS NULL
    AND i.unit = CASE WHEN b.metric_id IS NULL THEN 'cost/' || b.currency ELSE 'usage/' || b.metric_id END COLLATE "C"
"""

# Reads all usable segments of balances of no seat. Usage that gives something back can concern each of them.
_READ_ALL_POOLED = Forms.naming_shards(COLUMNS + _POOLED_BALANCES + _USABLE_SEGMENTS, _OF_BALANCES)

# How much the segments before this one in draw order (`in_order`) can give to every event of the usage.
_SURE_BEFORE = """
    sum(
        CASE WHEN s.start_time <= i.from_time AND (s.end_time IS NULL OR s.end_time > i.until_time)
            AND b.draw_down_metric_ids = '{}' THEN greatest(s.amount + s.adjusted - s.drawn - s.held, 0) ELSE 0 END
    ) OVER (
        PARTITION BY b.customer_id, i.unit
        ORDER BY b.priority, s.end_time NULLS LAST, s.start_time, b.balance_id, s.segment_number
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS sure_before
"""

# Reads the usable segments of balances of no seat, in draw order, until they cover all of the usage. A customer can
# have many more, and no event draws on those.
_READ_POOLED = Forms.naming_shards(
    "SELECT * FROM ("
    + (COLUMNS + ", i.amount AS wanted," + _SURE_BEFORE + _POOLED_BALANCES + _USABLE_SEGMENTS)
    + ") AS found WHERE coalesce(sure_before, 0) < wanted",
    _OF_BALANCES,
)

# The balances of the seats that the usage names.
_SEAT_BALANCES = """
FROM unnest(
    %(customer_ids)s::text[], %(keys)s::text[], %(values)s::text[], %(froms)s::timestamptz[],
    %(untils)s::timestamptz[]
) AS i (customer_id, key, value, from_time, until_time)
JOIN balance b ON b.organization_id = %(organization_id)s AND b.customer_id = i.customer_id COLLATE "C"
    AND b.seat_group_key = i.key COLLATE "C" AND b.seat_group_value = i.value COLLATE "C"
"""

# Reads all usable segments of the balances of some seats.
_READ_OF_SEATS = Forms.naming_shards(COLUMNS + _SEAT_BALANCES + _USABLE_SEGMENTS, _OF_BALANCES)


@dataclass(slots=True)
class Demand:
    """What usage of one customer in one unit can draw.

    first, last: the earliest and the latest time of the usage. amount: the most that it can draw; None if it gives
    something back.
    """

    first: datetime
    last: datetime
    amount: Decimal | None


async def send_drawables(
    connection: DriverConnection,
    organization_id: int,
    demands: Mapping[tuple[str, str], Demand],
    seats: Mapping[tuple[str, str, str], tuple[datetime, datetime]],
    *,
    whole: bool = False,
) -> list[Cursor]:
    """Reads the segments that usage can draw on, or give back to; `drawables` returns them.

    demands: by customer id and unit key. seats: the seats that the usage names (customer id, property, value), each
    with the earliest and the latest time of its usage. Of these seats all segments are read, of other seats none.
    whole: of the others too, all are read, and not only as many as the usage needs.
    """
    gives_back = any(one.amount is None for one in demands.values())
    read_pooled = _READ_ALL_POOLED if gives_back or whole else _READ_POOLED
    shared = {"organization_id": organization_id, "exhausted": gives_back}
    cursors = []
    if demands:
        cursors.append(await connection.execute(read_pooled.on(connection), shared | _demand_parameters(demands)))
    if seats:
        cursors.append(await connection.execute(_READ_OF_SEATS.on(connection), shared | _seat_parameters(seats)))
    return cursors


async def drawables(cursors: Sequence[Cursor]) -> list[Drawable]:
    """The result of `send_drawables`."""
    return [drawable_from(row) for cursor in cursors for row in await cursor.fetchall()]


def _demand_parameters(demands: Mapping[tuple[str, str], Demand]) -> dict[str, Any]:
    return {
        "customer_ids": [customer_id for customer_id, _ in demands],
        "units": [unit for _, unit in demands],
        "froms": [one.first for one in demands.values()],
        "untils": [one.last for one in demands.values()],
        "amounts": [one.amount for one in demands.values()],
    }


def _seat_parameters(seats: Mapping[tuple[str, str, str], tuple[datetime, datetime]]) -> dict[str, Any]:
    return {
        "customer_ids": [customer_id for customer_id, _, _ in seats],
        "keys": [key for _, key, _ in seats],
        "values": [value for _, _, value in seats],
        "froms": [span[0] for span in seats.values()],
        "untils": [span[1] for span in seats.values()],
    }


# Stores how much was drawn from segments in all, and how much is held of them.
_WRITE_SEGMENTS = Forms.naming_shards(
    """
UPDATE balance_segment s SET drawn = i.drawn, held = i.held
FROM unnest(
    %(customer_ids)s::text[], %(balance_ids)s::text[], %(numbers)s::int[], %(drawn)s::numeric[], %(held)s::numeric[]
) AS i (customer_id, balance_id, segment_number, drawn, held)
WHERE s.organization_id = %(organization_id)s AND s.customer_id = i.customer_id COLLATE "C"
    AND s.balance_id = i.balance_id COLLATE "C" AND s.segment_number = i.segment_number {shards}
""",
    "s.customer_id = ANY(%(customer_ids)s)",
)

# Adds an entry for each segment to the ledger.
_NEW_ENTRIES = """
INSERT INTO balance_entry (
    organization_id, create_time, customer_id, balance_id, segment_number, entry_type, amount, remaining{column}
) {overriding}
SELECT %(organization_id)s, %(now)s, i.* FROM unnest(
    %(customer_ids)s::text[], %(balance_ids)s::text[], %(numbers)s::int[], %(types)s::text[],
    %(amounts)s::numeric[], %(remaining)s::numeric[]{values}
) AS i
"""
_WRITE_ENTRIES = Forms(
    _NEW_ENTRIES.format(column="", overriding="", values="").encode(),
    _NEW_ENTRIES.format(
        column=", entry_number", overriding="OVERRIDING SYSTEM VALUE", values=", %(entry_numbers)s::bigint[]"
    ).encode(),
)

# Stores overages.
_WRITE_OVERAGES = """
INSERT INTO overage (organization_id, customer_id, unit, amount, held, update_time)
SELECT %(organization_id)s, i.*, %(now)s
FROM unnest(%(customer_ids)s::text[], %(units)s::text[], %(amounts)s::numeric[], %(held)s::numeric[]) AS i
ON CONFLICT (organization_id, customer_id, unit) DO UPDATE SET amount = excluded.amount, held = excluded.held,
    update_time = CASE WHEN overage.amount = excluded.amount THEN overage.update_time ELSE excluded.update_time END
"""


async def write(
    connection: DriverConnection,
    organization_id: int,
    drawn: Sequence[tuple[Drawable, Decimal]],
    overage: Mapping[tuple[str, str], OverageState],
    now: datetime,
    *,
    voids: bool = False,
) -> None:
    """Stores what was drawn and is held, with entries in the ledger, and the overages that changed.

    drawn: segments with the net amounts that they gave: below 0 if more was given back than drawn, 0 where only what
    is held changed. overage: the new overages, by customer id and unit key. voids: the ledger's entries are of voided
    usage. Must run under `exact_arithmetic`.
    """
    of_ledger = [(item, amount) for item, amount in drawn if amount and item.counts]
    overages = {
        "organization_id": organization_id,
        "now": now,
        "customer_ids": [customer_id for customer_id, _ in overage],
        "units": [unit for _, unit in overage],
        "amounts": [one.amount for one in overage.values()],
        "held": [one.held for one in overage.values()],
    }
    entries: dict[str, Any] = {}
    if of_ledger:
        entries = _segment_parameters(organization_id, of_ledger) | {
            "now": now,
            "types": [_entry_type(amount, voids).value for _, amount in of_ledger],
            "amounts": [-amount for _, amount in of_ledger],
            "remaining": [item.source.segment.undrawn for item, _ in of_ledger],
        }
        if on_cluster(connection):
            entries["entry_numbers"] = await next_numbers(
                connection, organization_id, entries["customer_ids"], entries["balance_ids"]
            )
    async with connection.pipeline():
        if drawn:
            segments = _segment_parameters(organization_id, drawn) | {
                "drawn": [item.source.segment.drawn for item, _ in drawn],
                "held": [item.source.segment.held for item, _ in drawn],
            }
            await connection.execute(_WRITE_SEGMENTS.on(connection), segments)
        if entries:
            await connection.execute(_WRITE_ENTRIES.on(connection), entries)
        if overage:
            await connection.execute(_WRITE_OVERAGES, overages)


def _segment_parameters(organization_id: int, items: Sequence[tuple[Drawable, Decimal]]) -> dict[str, Any]:
    return {
        "organization_id": organization_id,
        "customer_ids": [item.customer_id for item, _ in items],
        "balance_ids": [item.source.balance_id for item, _ in items],
        "numbers": [item.source.segment.number for item, _ in items],
    }


def _entry_type(amount: Decimal, voids: bool) -> EntryType:
    if voids:
        return EntryType.USAGE_VOID
    return EntryType.DRAW if amount > 0 else EntryType.GIVE_BACK


# The segments of the balances that usage draws on or drew on, also of voided balances and in any time.
_READ_PAST = (
    COLUMNS
    + """, b.create_time, b.void_time
FROM balance b JOIN balance_segment s ON s.organization_id = b.organization_id AND s.customer_id = b.customer_id
    AND s.balance_id = b.balance_id
WHERE b.organization_id = %(organization_id)s AND b.customer_id = ANY(%(customer_ids)s)
    AND b.draw_down AND NOT s.removed
"""
)


@dataclass(frozen=True, slots=True)
class PastDrawable:
    """A segment that usage draws on or drew on. create_time, void_time: of its balance."""

    item: Drawable
    create_time: datetime
    void_time: datetime | None


async def past_drawables(
    connection: DriverConnection, organization_id: int, customer_ids: Iterable[str]
) -> list[PastDrawable]:
    """All segments of customers that usage draws on or drew on, except those that a put left out."""
    cursor = await connection.execute(
        _READ_PAST.encode(), {"organization_id": organization_id, "customer_ids": list(customer_ids)}
    )
    return [PastDrawable(drawable_from(row), *row[_COLUMN_COUNT:]) for row in await cursor.fetchall()]


def drawable_from(row: Row) -> Drawable:
    """The segment in a row that begins with COLUMNS."""
    holding = holding_from(row[1:11], (HoldingSegment(*row[11:17]),))
    priority, overdraws, metric_ids = row[17:_COLUMN_COUNT]
    source = Source(
        holding.balance_id,
        holding.segments[0],
        priority,
        of_seat=holding.seat is not None,
        overdraws=overdraws,
        metric_ids=frozenset(metric_ids),
    )
    return Drawable(row[0], holding, source)
