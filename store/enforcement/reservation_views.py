"""Reservations as callers read them, without a lock."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from psycopg.rows import dict_row

from evaluator.enforcement.decisions import Outcome, OveragePolicy
from evaluator.enforcement.reservations import Reservation, ReservationState
from evaluator.enforcement.usage import Usage
from store.postgres import bounded_pages
from store.postgres.bounded_pages import BoundedPage, ListScan
from store.postgres.database import Connection, driver

# Without what only their settlement needs.
_COLUMNS = (
    *("customer_id", "reservation_id", "state", "subscription_id", "metric_id", "quantity", "cost", "currency"),
    *("properties", "overage_policy", "outcome", "granted_quantity", "granted_cost", "event_time", "create_time"),
    *("expire_time", "end_time", "settled_quantity", "settled_cost", "late"),
)
_OF_CUSTOMER = "organization_id = %(organization_id)s AND customer_id = %(customer_id)s"
_GET = f"SELECT {', '.join(_COLUMNS)} FROM reservation WHERE {_OF_CUSTOMER} AND reservation_id = %(reservation_id)s"


@dataclass(frozen=True, slots=True)
class ReservationFilter:
    """Which reservations to list. states: any of these; empty: all."""

    customer_id: str
    states: Collection[ReservationState] = ()


async def get(
    connection: Connection, organization_id: int, customer_id: str, reservation_id: str
) -> Reservation | None:
    """One reservation, or None."""
    parameters = {
        "organization_id": organization_id,
        "customer_id": customer_id,
        "reservation_id": reservation_id,
    }
    async with (await driver(connection)).cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_GET.encode(), parameters)
        row = await cursor.fetchone()
    return None if row is None else _reservation(row)


async def list_page(
    connection: Connection,
    organization_id: int,
    wanted: ReservationFilter,
    *,
    after: tuple[str, str] | None,
    limit: int,
    most_examined: int | None = None,
) -> BoundedPage[Reservation, tuple[str, str]]:
    """Up to `limit` reservations after that customer and id, by ascending id.

    most_examined: reservations that are read at most; None: MAX_EXAMINED of `bounded_pages`.
    """
    return await bounded_pages.read(
        connection,
        organization_id,
        ListScan(
            table="reservation",
            columns=_COLUMNS,
            order=("customer_id", "reservation_id"),
            ranges=(_OF_CUSTOMER,),
            parameters={
                "organization_id": organization_id,
                "customer_id": wanted.customer_id,
                "states": [state.value for state in wanted.states],
            },
            filters=("page.state = ANY(%(states)s)",) if wanted.states else (),
        ),
        _reservation,
        after=after,
        limit=limit,
        most_examined=most_examined,
    )


def _reservation(row: Mapping[str, Any]) -> Reservation:
    usage = Usage(
        row["customer_id"],
        row["metric_id"],
        row["quantity"],
        row["cost"],
        row["currency"],
        row["subscription_id"],
        row["properties"] or {},
        row["event_time"],
    )
    return Reservation(
        row["reservation_id"],
        usage,
        OveragePolicy(row["overage_policy"]),
        ReservationState(row["state"]),
        Outcome(row["outcome"]),
        row["granted_quantity"],
        row["granted_cost"],
        row["create_time"],
        row["expire_time"],
        row["end_time"],
        row["settled_quantity"],
        row["settled_cost"],
        row["late"],
    )
