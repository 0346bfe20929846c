"""The ledger of balances: every change of what remains of a segment, in the order of the changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy import ColumnElement, RowMapping, insert, null, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from store.balances.entry_numbers import next_numbers
from store.postgres.counting import bounded_count
from store.postgres.database import driver
from store.postgres.distributed import on_cluster
from store.tables.balances import balance_entry


class EntryType(StrEnum):
    """What changed a balance."""

    GRANT = "GRANT"
    ADJUSTMENT = "ADJUSTMENT"
    VOID = "VOID"
    DRAW = "DRAW"
    GIVE_BACK = "GIVE_BACK"
    USAGE_VOID = "USAGE_VOID"


@dataclass(frozen=True)
class NewEntry:
    """One change. amount: the change of what remains of the segment. remaining: what remains after it.

    customer_remaining: of an adjustment, what remains in all active segments of the customer in that unit.
    """

    customer_id: str
    balance_id: str
    segment_number: int
    entry_type: EntryType
    amount: Decimal
    remaining: Decimal
    adjustment_id: str | None = None
    custom_fields: Mapping[str, str] = field(default_factory=dict)
    customer_remaining: Decimal | None = None


@dataclass(frozen=True)
class StoredEntry:
    """One change as it is stored. entry_number: rises with each entry of a customer."""

    organization_id: int
    entry_number: int
    change: NewEntry
    create_time: datetime


_COLUMNS = [column.name for column in balance_entry.columns]
_INSERT_NUMBERED = (
    f"INSERT INTO balance_entry ({', '.join(_COLUMNS)}) OVERRIDING SYSTEM VALUE"
    f" VALUES ({', '.join(f'%({name})s' for name in _COLUMNS)})"
).encode()


async def append(
    connection: AsyncConnection, organization_id: int, changes: Sequence[NewEntry], now: datetime
) -> None:
    """Writes the changes in their order. The transaction must hold the customers' wallets."""
    if not changes:
        return
    rows: list[dict[str, Any]] = [
        {
            "organization_id": organization_id,
            "customer_id": change.customer_id,
            "balance_id": change.balance_id,
            "segment_number": change.segment_number,
            "entry_type": change.entry_type.value,
            "amount": change.amount,
            "remaining": change.remaining,
            "adjustment_id": change.adjustment_id,
            "create_time": now,
            "custom_fields": dict(change.custom_fields) or null(),
            "customer_remaining": change.customer_remaining,
        }
        for change in changes
    ]
    raw = await driver(connection)
    if not on_cluster(raw):
        await connection.execute(insert(balance_entry), rows)
        return
    numbers = await next_numbers(
        raw, organization_id, [one.customer_id for one in changes], [one.balance_id for one in changes]
    )
    for row, change, number in zip(rows, changes, numbers, strict=True):
        row["custom_fields"] = Jsonb(dict(change.custom_fields)) if change.custom_fields else None
        await raw.execute(_INSERT_NUMBERED, row | {"entry_number": number})


async def of_adjustment(
    connection: AsyncConnection, organization_id: int, customer_id: str, adjustment_id: str
) -> list[StoredEntry]:
    """The entries of an adjustment, in the order in which they were written."""
    rows = await connection.execute(
        select(balance_entry)
        .where(
            balance_entry.c.organization_id == organization_id,
            balance_entry.c.customer_id == customer_id,
            balance_entry.c.adjustment_id == adjustment_id,
        )
        .order_by(balance_entry.c.entry_number)
    )
    return [_entry(row) for row in rows.mappings()]


async def list_page(
    connection: AsyncConnection,
    organization_id: int,
    customer_id: str,
    *,
    balance_id: str | None,
    after: tuple[str, int] | None,
    limit: int,
) -> list[StoredEntry]:
    """Up to `limit` entries of a customer in the order of balance id and number.

    after: balance id and number of the last entry of the page before.
    """
    statement = select(balance_entry).where(*_selected(organization_id, customer_id, balance_id))
    if after is not None:
        statement = statement.where(tuple_(balance_entry.c.balance_id, balance_entry.c.entry_number) > after)
    rows = await connection.execute(
        statement.order_by(balance_entry.c.balance_id, balance_entry.c.entry_number).limit(limit)
    )
    return [_entry(row) for row in rows.mappings()]


async def count(
    connection: AsyncConnection, organization_id: int, customer_id: str, *, balance_id: str | None
) -> int:
    """How many entries `list_page` returns on all pages, see `bounded_count`."""
    return await bounded_count(connection, balance_entry, *_selected(organization_id, customer_id, balance_id))


def _selected(organization_id: int, customer_id: str, balance_id: str | None) -> list[ColumnElement[bool]]:
    conditions = [balance_entry.c.organization_id == organization_id, balance_entry.c.customer_id == customer_id]
    if balance_id is not None:
        conditions.append(balance_entry.c.balance_id == balance_id)
    return conditions


def _entry(row: RowMapping) -> StoredEntry:
    return StoredEntry(
        organization_id=row["organization_id"],
        entry_number=row["entry_number"],
        change=NewEntry(
            customer_id=row["customer_id"],
            balance_id=row["balance_id"],
            segment_number=row["segment_number"],
            entry_type=EntryType(row["entry_type"]),
            amount=row["amount"],
            remaining=row["remaining"],
            adjustment_id=row["adjustment_id"],
            custom_fields=row["custom_fields"] or {},
            customer_remaining=row["customer_remaining"],
        ),
        create_time=row["create_time"],
    )
