"""The audit log as it is read: one entry, pages of a list, and the entries after a number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.audit.entries import Actor, ActorKind, Cause, Changed, ResourceType
from store.postgres import bounded_pages
from store.postgres.bounded_pages import BoundedPage, ListScan
from store.postgres.database import driver
from store.tables.audit import audit_entry, audit_log


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry as it is stored. erased: its customer was erased."""

    entry_number: int
    create_time: datetime
    cause: Cause
    changed: Changed
    erased: bool


@dataclass(frozen=True)
class AuditFilter:
    """Which entries a list or a stream contains. An empty field does not restrict."""

    actor_id: str = ""
    resource_types: tuple[ResourceType, ...] = ()
    resource_id: str = ""
    customer_id: str = ""
    methods: tuple[str, ...] = ()


@dataclass(frozen=True)
class Extent:
    """The numbers that a log has: those after `deleted_number`, up to `last_number`."""

    last_number: int = 0
    deleted_number: int = 0


class EntriesDeleted(Exception):
    """Entries that were to be read are older than the retention and are deleted."""


_COLUMNS = (
    "entry_number",
    "create_time",
    "actor_kind",
    "actor_id",
    "actor_name",
    "actor_identity",
    "roles",
    "method",
    "peer",
    "client_identity",
    "user_agent",
    "request_id",
    "resource_type",
    "resource_id",
    "customer_id",
    "before_state",
    "after_state",
    "hidden_fields",
    "abridged",
    "erased",
)

Position = tuple[datetime, int]  # create_time and number of an entry
Between = tuple[datetime | None, datetime | None]  # a time from its start to just before its end; None: without one


async def get(connection: AsyncConnection, organization_id: int, entry_number: int) -> StoredEntry | None:
    """The entry of that number; None if there is none, or it is deleted."""
    cursor = (await driver(connection)).cursor(row_factory=dict_row)
    await cursor.execute(
        f"SELECT {', '.join(_COLUMNS)} FROM audit_entry WHERE organization_id = %s AND entry_number = %s".encode(),
        (organization_id, entry_number),
    )
    row = await cursor.fetchone()
    return None if row is None else _entry(row)


async def list_page(
    connection: AsyncConnection,
    organization_id: int,
    wanted: AuditFilter,
    *,
    between: Between = (None, None),
    after: Position | None = None,
    limit: int,
    most_examined: int | None = None,
) -> BoundedPage[StoredEntry, Position]:
    """Up to `limit` entries of changes in that time, the newest first.

    most_examined: entries that are read at most; by default MAX_EXAMINED of `bounded_pages`. When there are more, a
    page may have fewer than `limit`.
    """
    conditions, parameters = _conditions(organization_id, wanted)
    for name, value, sign in zip(("start_time", "end_time"), between, (">=", "<"), strict=True):
        if value is not None:
            conditions.append(f"create_time {sign} %({name})s")
            parameters[name] = value
    scan = ListScan(
        table="audit_entry",
        columns=_COLUMNS,
        order=("create_time", "entry_number"),
        ranges=[" AND ".join(conditions)],
        filters=_checked(wanted, parameters),
        parameters=parameters,
        newest_first=True,
    )
    return await bounded_pages.read(
        connection, organization_id, scan, _entry, after=after, limit=limit, most_examined=most_examined
    )


async def read(
    connection: AsyncConnection, organization_id: int, wanted: AuditFilter, *, after: int, limit: int
) -> tuple[list[StoredEntry], int]:
    """The wanted entries among the `limit` numbers after `after`, and the number up to which it has read.

    Raises EntriesDeleted if entries after `after` are deleted.
    """
    conditions, parameters = _conditions(organization_id, wanted)
    conditions += [*_checked(wanted, parameters), "entry_number > %(after)s", "entry_number <= %(until)s"]
    extent_before = await extent(connection, organization_id)
    until = min(after + limit, extent_before.last_number)
    cursor = (await driver(connection)).cursor(row_factory=dict_row)
    statement = (
        f"SELECT {', '.join(_COLUMNS)} FROM audit_entry WHERE {' AND '.join(conditions)} ORDER BY entry_number"
    )
    await cursor.execute(statement.encode(), parameters | {"after": after, "until": until})
    found = [_entry(row) for row in await cursor.fetchall()]
    if not found and until < extent_before.last_number:
        until = await _before_next(connection, organization_id, until, extent_before.last_number)
    # Read after the rows: in the other order, entries that are deleted between the two statements are missed.
    if (await extent(connection, organization_id)).deleted_number > after:
        raise EntriesDeleted
    return found, max(until, after)


# Of the numbers that `tidemark restored` leaves out, a stream would otherwise read each.
_NEXT_NUMBER = text("""
SELECT entry_number FROM audit_entry WHERE organization_id = :organization_id AND entry_number > :after
ORDER BY entry_number LIMIT 1
""")


async def _before_next(connection: AsyncConnection, organization_id: int, after: int, last: int) -> int:
    """The number before the next entry; the last one if there is none."""
    number = await connection.scalar(_NEXT_NUMBER, {"organization_id": organization_id, "after": after})
    return last if number is None else int(number) - 1


async def extent(connection: AsyncConnection, organization_id: int) -> Extent:
    """The numbers that the log has."""
    found = await connection.execute(
        select(audit_log.c.last_number, audit_log.c.deleted_number).where(
            audit_log.c.organization_id == organization_id
        )
    )
    row = found.one_or_none()
    return Extent() if row is None else Extent(row.last_number, row.deleted_number)


async def number_before(connection: AsyncConnection, organization_id: int, time: datetime) -> int:
    """The number after which all entries of `time` or later follow; the last one if there are none."""
    # Read before the entries: in the other order, an entry that comes between the two statements is missed.
    last = (await extent(connection, organization_id)).last_number
    first = await connection.scalar(
        select(audit_entry.c.entry_number)
        .where(audit_entry.c.organization_id == organization_id, audit_entry.c.high_time >= time)
        .order_by(audit_entry.c.high_time, audit_entry.c.entry_number)
        .limit(1)
    )
    return last if first is None else int(first) - 1


def _conditions(organization_id: int, wanted: AuditFilter) -> tuple[list[str], dict[str, Any]]:
    """The conditions that indexes answer, each with the entries in order."""
    conditions, parameters = (
        ["organization_id = %(organization_id)s"],
        dict[str, Any](organization_id=organization_id),
    )
    for name in ("actor_id", "resource_id", "customer_id"):
        if value := getattr(wanted, name):
            conditions.append(f"{name} = %({name})s")
            parameters[name] = value
    return conditions, parameters


def _checked(wanted: AuditFilter, parameters: dict[str, Any]) -> list[str]:
    """The conditions that are checked entry by entry."""
    checked = list[str]()
    for column, values in (("resource_type", wanted.resource_types), ("method", wanted.methods)):
        if values:
            checked.append(f"{column} = ANY(%({column}s)s)")
            parameters[f"{column}s"] = [str(value) for value in values]
    return checked


def _entry(row: Mapping[str, Any]) -> StoredEntry:
    actor = Actor(
        ActorKind(row["actor_kind"]),
        row["actor_id"],
        row["actor_name"],
        row["actor_identity"],
        tuple(row["roles"]),
    )
    cause = Cause(actor, row["method"], row["peer"], row["client_identity"], row["user_agent"], row["request_id"])
    changed = Changed(
        ResourceType(row["resource_type"]),
        row["resource_id"],
        row["customer_id"] or "",
        row["before_state"],
        row["after_state"],
        tuple(row["hidden_fields"]),
        row["abridged"],
    )
    return StoredEntry(row["entry_number"], row["create_time"], cause, changed, row["erased"])


def canonical(wanted: AuditFilter) -> Sequence[str]:
    """The filters as texts that are equal for equal filters, in whatever order their values are."""
    return (
        wanted.actor_id,
        "\n".join(sorted({str(one) for one in wanted.resource_types})),
        wanted.resource_id,
        wanted.customer_id,
        "\n".join(sorted(set(wanted.methods))),
    )
