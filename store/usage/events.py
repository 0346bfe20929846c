"""Usage events: the COPY that stores them, and the slower INSERT that finds duplicates."""

import operator
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson
import psycopg

from evaluator.events import UsageEvent
from runtime.compiled import problem_of, problem_of_import
from runtime.turns import Slices
from store.citus.shard_tables import ShardsOf, by_shard
from store.postgres.database import Cursor, DriverConnection
from store.postgres.distributed import Forms
from store.postgres.failures import is_duplicate
from store.postgres.partitions import month_start, next_month
from store.tables import event_key
from store.usage.months import in_month_of

try:
    from store.usage import native_rows
except ImportError as error:
    HAS_NATIVE_ROWS, ROWS_PROBLEM = False, problem_of_import(error, __package__)
else:
    ROWS_PROBLEM = problem_of(native_rows)
    HAS_NATIVE_ROWS = ROWS_PROBLEM is None

LINES_AT_ONCE = 250  # events whose COPY rows are written in one turn on the event loop
ROWS_AT_ONCE = 250  # events of one INSERT, whose parameters are written in one turn

_COLUMNS = (
    "organization_id, customer_id, event_id, event_time, ingest_time,"
    " subscription_id, metric_id, quantity, cost, currency, properties, event_name"
)
# The columns that come as parameters, each as one text with tabs between the values: no value contains a tab. The
# driver converts arrays value by value.
_TYPES = {
    "customer_id": "text",
    "event_id": "text",
    "event_time": "timestamptz",
    "subscription_id": "text",
    "metric_id": "text",
    "quantity": "numeric",
    "cost": "numeric",
    "currency": "text",
    "properties": "jsonb",
    "event_name": "text",
}
_OWN_COLUMNS = ", ".join(_TYPES)
_EVENTS = (
    "unnest(" + ", ".join(f"string_to_array(%({name})s, E'\t', '')::{kind}[]" for name, kind in _TYPES.items()) + ")"
)

# Stores events that are expected to be new.
_COPY = f"COPY event ({_COLUMNS}) FROM STDIN (NULL '')"

# Stores the events that are new, and returns them; the others are stored already. A retry that runs at the same time
# as its first try waits here for the end of that transaction.
_INSERT = f"""
INSERT INTO event ({_COLUMNS})
SELECT %(organization_id)s, i.customer_id, i.event_id, i.event_time, %(ingest_time)s,
       i.subscription_id, i.metric_id, i.quantity, i.cost, i.currency, i.properties, i.event_name
FROM {_EVENTS} AS i ({_OWN_COLUMNS})
ON CONFLICT DO NOTHING
RETURNING customer_id, event_id
"""

# Where an error says which row of COPY it concerns. The words between are in the language of the server.
_COPIED_ROW = re.compile(r"^COPY event, \D*(\d+)")

_OF_EVENT = event_key.of_event("%(organization_id)s", "i.customer_id", "i.event_id")

# Which of the events are stored with the same content. A stored event of the same identity lies in the same month, so
# only that partition is read. An event without a currency was stored with the customer's currency of that time.
_ALIKE = f"""
SELECT i.position
FROM {_EVENTS} WITH ORDINALITY AS i ({_OWN_COLUMNS}, position)
JOIN event e ON {_OF_EVENT}
    AND {in_month_of("i.event_time")} {{shards}}
WHERE (e.event_time, e.subscription_id, e.metric_id, e.quantity, e.cost, e.currency, e.properties, e.event_name)
    IS NOT DISTINCT FROM
    (
        i.event_time, i.subscription_id, i.metric_id, i.quantity, i.cost,
        CASE WHEN i.cost IS NULL THEN NULL ELSE coalesce(i.currency, e.currency) END, i.properties,
        i.event_name
    )
"""


# Which of the identities are stored.
_STORED = f"""
SELECT i.position
FROM {_EVENTS} WITH ORDINALITY AS i ({_OWN_COLUMNS}, position)
JOIN event e ON {_OF_EVENT}
    AND {in_month_of("i.event_time")} {{shards}}
"""
_IN_MONTHS = "AND e.event_time >= %(since)s AND e.event_time < %(until)s"
_OF_CUSTOMERS = r"e.customer_id = ANY(string_to_array(%(customer_id)s, E'\t'))"
_THOSE_ALIKE = Forms.naming_shards(_ALIKE, _OF_CUSTOMERS)
_THOSE_STORED = Forms.naming_shards(_STORED, _OF_CUSTOMERS)


class EventsVoided(Exception):
    """An event was stored when this transaction found its duplicate, and was voided since; try once more."""


class DuplicateEvents(Exception):
    """At least one of the events is stored already; the transaction must roll back.

    row: how many events, in key order, are before the first one of them. None if the database did not say it.
    """

    def __init__(self, row: int | None = None) -> None:
        super().__init__("some events are stored already")
        self.row = row


def copy_text(
    organization_id: int, ingest_time: datetime, events: Sequence[UsageEvent], *, native: bool = True
) -> bytes:
    """The events as rows of COPY's text format, in key order (see `in_key_order`).

    native: written by `native_rows`, where that is compiled.
    """
    if not events:  # if all events of a batch are too old
        return b""
    return _in_order(*_lines(organization_id, ingest_time, events, native=native))


async def copy_text_in_slices(
    organization_id: int,
    ingest_time: datetime,
    events: Sequence[UsageEvent],
    slices: Slices,
    *,
    native: bool = True,
) -> bytes:
    """The same text as `copy_text`; of many events, it is made in slices."""
    if len(events) <= LINES_AT_ONCE:
        return copy_text(organization_id, ingest_time, events, native=native)
    months: list[str] = []
    lines: list[str] = []
    await slices.begin()
    for start in range(0, len(events), LINES_AT_ONCE):
        more = _lines(organization_id, ingest_time, events[start : start + LINES_AT_ONCE], native=native)
        months += more[0]
        lines += more[1]
        await slices.pause()
    return _in_order(months, lines)


def _lines(
    organization_id: int, ingest_time: datetime, events: Sequence[UsageEvent], *, native: bool
) -> tuple[list[str], list[str]]:
    """The months of the events, and their rows without escapes.

    Ids contain no control characters, so only backslashes need escapes (`_in_order`).
    """
    head, ingested = f"{organization_id}\t", ingest_time.isoformat()
    return native_rows.lines(head, ingested, events) if native and HAS_NATIVE_ROWS else lines(head, ingested, events)


def lines(head: str, ingested: str, events: Sequence[UsageEvent]) -> tuple[list[str], list[str]]:
    """The same as `native_rows.lines`."""
    # One call for all times: formatting each time by itself takes longer than the rest of the row.
    times = orjson.dumps([event.event_time for event in events]).decode()[2:-2].split('","')
    # `!s`: a Decimal formats itself without a format three times as fast as with an empty one.
    rows = [
        f"{head}{customer_id}\t{event_id}\t{time}\t{ingested}\t{subscription_id or ''}\t{metric_id}\t{quantity!s}"
        f"\t{'' if cost is None else str(cost)}\t{currency or ''}"
        f"\t{orjson.dumps(properties).decode() if properties else ''}\t{event_name or ''}\n"
        for time, (
            event_id,
            customer_id,
            _,
            metric_id,
            quantity,
            subscription_id,
            cost,
            currency,
            properties,
            event_name,
        ) in zip(times, events, strict=True)
    ]
    return [time[:7] for time in times], rows


def _in_order(months: list[str], lines: list[str]) -> bytes:
    # A tab sorts before every character of an id, so rows of one month sort in the order of their keys.
    if months.count(months[0]) == len(months):
        lines.sort()
    else:
        lines = [line for _, line in sorted(zip(months, lines, strict=True))]
    text = "".join(lines)
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    return text.encode()


async def copy(connection: DriverConnection, rows: bytes, *, table: str = "event") -> None:
    """Stores events that are expected to be new. Raises DuplicateEvents if one is not.

    table: of the shard of all of them, instead of the distributed table.
    """
    if not rows:
        return
    try:
        async with connection.cursor() as cursor, cursor.copy(_in_table(_COPY, table)) as copying:
            await copying.write(rows)
    except psycopg.Error as error:
        if is_duplicate(error):
            raise DuplicateEvents(row_of(error.diag.context)) from error
        raise


def row_of(context: str | None) -> int | None:
    """How many rows of COPY are before the one that the context of an error names; None if it names none."""
    named = _COPIED_ROW.search(context or "")
    return int(named[1]) - 1 if named else None


def in_key_order(events: Sequence[UsageEvent]) -> list[UsageEvent]:
    """The events in the order in which every transaction stores them: two with common events do not deadlock.

    By month first: COPY buffers rows for each partition, and writes them partition by partition. `copy_text` has the
    same order.
    """
    ordered = sorted(events, key=_ids)
    if not ordered:
        return ordered
    first, last = (of(ordered, key=_time).event_time for of in (min, max))
    if (first.year, first.month) != (last.year, last.month):
        ordered.sort(key=lambda event: (event.event_time.year, event.event_time.month))
    return ordered


# Functions that are not written in Python.
_ids = operator.itemgetter(UsageEvent._fields.index("customer_id"), UsageEvent._fields.index("event_id"))
_time = operator.itemgetter(UsageEvent._fields.index("event_time"))


async def insert(
    connection: DriverConnection, organization_id: int, ingest_time: datetime, events: Sequence[UsageEvent]
) -> set[tuple[str, str]]:
    """Stores those of the events that are new; returns their identities. The events must be distinct."""
    if not events:
        return set()
    ordered, inserted = in_key_order(events), set[tuple[str, str]]()
    slices = Slices(organization_id)
    for start in range(0, len(ordered), ROWS_AT_ONCE):
        await slices.begin()
        cursor = await _send_insert(connection, organization_id, ingest_time, ordered[start : start + ROWS_AT_ONCE])
        inserted.update((row[0], row[1]) for row in await cursor.fetchall())
    return inserted


async def send_insert(
    connection: DriverConnection,
    organization_id: int,
    ingest_time: datetime,
    events: Sequence[UsageEvent],
    *,
    table: str = "event",
) -> Cursor:
    """Sends the statement that stores those of a few events that are new. It has a row for each of these.

    table: as in `copy`.
    """
    return await _send_insert(connection, organization_id, ingest_time, in_key_order(events), table)


async def _send_insert(
    connection: DriverConnection,
    organization_id: int,
    ingest_time: datetime,
    ordered: Sequence[UsageEvent],
    table: str = "event",
) -> Cursor:
    parameters = {**_parameters(organization_id, ordered), "ingest_time": ingest_time}
    return await connection.execute(_in_table(_INSERT, table), parameters)


def _in_table(statement: str, table: str) -> str:
    """A statement that stores events, with the table of a shard instead of `event`."""
    return statement if table == "event" else statement.replace(" event (", f" {table} (", 1)


async def stored_alike(
    connection: DriverConnection,
    organization_id: int,
    events: Sequence[UsageEvent],
    shards: ShardsOf | None = None,
) -> set[int]:
    """The indexes of those events that are stored with the same content.

    shards: whose tables are read. Through the distributed table, each shard would search the events of all.
    """
    alike, slices = set[int](), Slices(organization_id)
    parts: list[tuple[bytes, Sequence[int]]] = [(_THOSE_ALIKE.on(connection), range(len(events)))]
    if shards is not None:
        by_table = by_shard((event.customer_id for event in events), shards)
        parts = [(_alike_in(shard.event), indexes) for shard, indexes in by_table.items()]
    for statement, indexes in parts:
        for start in range(0, len(indexes), ROWS_AT_ONCE):
            await slices.begin()
            some = indexes[start : start + ROWS_AT_ONCE]
            part = [events[index] for index in some]
            parameters = _parameters(organization_id, part)
            if shards is not None:
                parameters.update(_months_of(part))
            cursor = await connection.execute(statement, parameters)
            alike.update(some[row[0] - 1] for row in await cursor.fetchall())
    return alike


def _alike_in(table: str) -> bytes:
    """_ALIKE in the table of a shard.

    The months that are read are parameters, too. Without them the plan has each month of the shard, and since a shard
    is small, PostgreSQL reads all of it instead of some rows of a key.
    """
    return _ALIKE.replace("JOIN event e", f"JOIN {table} e").replace("{shards}", _IN_MONTHS).encode()


def _months_of(events: Sequence[UsageEvent]) -> dict[str, datetime]:
    """The parameters of _IN_MONTHS."""
    first, last = (of(events, key=_time).event_time for of in (min, max))
    return {"since": month_start(first), "until": next_month(month_start(last))}


async def check_stored(connection: DriverConnection, organization_id: int, events: Sequence[UsageEvent]) -> None:
    """Raises EventsVoided unless an event of each of these identities is stored."""
    slices = Slices(organization_id)
    for start in range(0, len(events), ROWS_AT_ONCE):
        await slices.begin()
        part = events[start : start + ROWS_AT_ONCE]
        cursor = await connection.execute(_THOSE_STORED.on(connection), _parameters(organization_id, part))
        if len(await cursor.fetchall()) < len(part):
            raise EventsVoided


async def stored_of(
    connection: DriverConnection, organization_id: int, events: Sequence[UsageEvent]
) -> set[tuple[str, str]]:
    """The identities of those events of which an event with the same identity is stored."""
    found = set[tuple[str, str]]()
    for start in range(0, len(events), ROWS_AT_ONCE):
        part = events[start : start + ROWS_AT_ONCE]
        cursor = await connection.execute(_THOSE_STORED.on(connection), _parameters(organization_id, part))
        found.update([part[row[0] - 1].identity for row in await cursor.fetchall()])
    return found


def _parameters(organization_id: int, events: Sequence[UsageEvent]) -> dict[str, Any]:
    """The parameters of the statements with _EVENTS. An empty text stands for NULL; no value is empty."""
    columns = zip(*events, strict=True)
    found: dict[str, Any] = {"organization_id": organization_id}
    for name, values in zip(UsageEvent._fields, columns, strict=True):
        if name == "event_time":
            # One call for all times: formatting each time by itself takes longer than all else.
            found[name] = orjson.dumps(values).decode()[2:-2].replace('","', "\t")
        elif name == "properties":
            found[name] = "\t".join([orjson.dumps(one).decode() if one else "" for one in values])
        else:
            found[name] = "\t".join(["" if one is None else str(one) for one in values])
    return found
