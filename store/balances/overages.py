"""Overages: usage of customers that no balance covered, as it is read. `store.balances.drawdown` writes it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from evaluator.amounts import ZERO
from evaluator.balances import Unit
from store.postgres.counting import bounded_count
from store.postgres.database import Connection, Cursor, DriverConnection
from store.tables.wallets import overage as overage_table


class OverageState(NamedTuple):
    """The overage of a customer in one unit. held: what open reservations hold of it where it is below zero."""

    amount: Decimal = ZERO
    held: Decimal = ZERO


# The overages of some customers.
_READ = """
SELECT customer_id, unit, amount, held FROM overage
WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(customer_ids)s)
"""


async def of_customers(
    connection: DriverConnection, organization_id: int, customer_ids: Iterable[str]
) -> dict[tuple[str, str], OverageState]:
    """The overages of customers, by customer id and unit key."""
    return await states(await send_read(connection, organization_id, customer_ids))


async def send_read(connection: DriverConnection, organization_id: int, customer_ids: Iterable[str]) -> Cursor:
    """Sends the statement of `of_customers`; `states` reads its result."""
    return await connection.execute(_READ, {"organization_id": organization_id, "customer_ids": list(customer_ids)})


async def states(cursor: Cursor) -> dict[tuple[str, str], OverageState]:
    """The result of `send_read`."""
    return {(row[0], row[1]): OverageState(row[2], row[3]) for row in await cursor.fetchall()}


@dataclass(frozen=True)
class Overage:
    """Usage of a customer in one unit that no balance covered. held: see `OverageState`."""

    unit: Unit
    amount: Decimal
    update_time: datetime
    held: Decimal = ZERO


# A page of the overages of one customer. The unit keys of currencies come before those of metrics.
_LIST = """
SELECT unit, amount, update_time, held FROM overage
WHERE organization_id = %(organization_id)s AND customer_id = %(customer_id)s AND unit > %(after)s
ORDER BY unit LIMIT %(limit)s
"""


async def list_page(
    connection: DriverConnection, organization_id: int, customer_id: str, *, after: str | None, limit: int
) -> list[Overage]:
    """Up to `limit` overages of a customer, those in currencies first.

    after: the unit key of the last overage of the page before.
    """
    cursor = await connection.execute(
        _LIST,
        {"organization_id": organization_id, "customer_id": customer_id, "after": after or "", "limit": limit},
    )
    return [Overage(Unit.from_key(row[0]), row[1], row[2], row[3]) for row in await cursor.fetchall()]


async def count(connection: Connection, organization_id: int, customer_id: str) -> int:
    """How many overages a customer has, see `bounded_count`."""
    columns = overage_table.c
    of_customer = columns.organization_id == organization_id, columns.customer_id == customer_id
    return await bounded_count(connection, overage_table, *of_customer)
