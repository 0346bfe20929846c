"""Where each table lies on a cluster of Citus. On one PostgreSQL the placement has no effect.

Each table states it beside its columns: `info=lies(BY_CUSTOMER)`. What decides:

- BY_CUSTOMER: what belongs to one customer and grows with customers. The rows of a customer lie on one worker. Each
  key has to contain customer_id, and a statement that locks rows has to name one customer.
- EVERY_NODE: what few calls write, and statements about customers read. A write goes to each node, and other writes
  of the table wait until it commits.
- COORDINATOR: the rest, when one transaction also writes tables of customers. No statement of a shard can read it.
- COORDINATOR_ALONE: tables whose transactions write no table of a customer.

COORDINATOR is in the metadata of Citus, COORDINATOR_ALONE is not. The difference is the commit. A transaction that
changes rows on one worker and in a table that Citus does not know commits at the worker first, without a prepared
transaction: a crash in between would delete a row of `outbox` and lose the deliveries that were made of it. A change
of a table in the metadata makes Citus prepare the transaction at the worker; the fan-out changes `fan_out` for that.
"""

import enum
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Table

from store.tables.base import metadata

_PLACEMENT, _KEY = "placement", "distributed key"


class Placement(enum.Enum):
    """Where the rows of a table lie."""

    BY_CUSTOMER = "distributed by customer_id, beside those of `customer`"
    EVERY_NODE = "a copy on each node (a reference table)"
    COORDINATOR = "on the coordinator, in the metadata of Citus"
    COORDINATOR_ALONE = "on the coordinator, unknown to Citus"


BY_CUSTOMER = Placement.BY_CUSTOMER
EVERY_NODE = Placement.EVERY_NODE
COORDINATOR = Placement.COORDINATOR
COORDINATOR_ALONE = Placement.COORDINATOR_ALONE

DISTRIBUTION_COLUMN = "customer_id"
# All tables BY_CUSTOMER are colocated with this one.
ANCHOR = "customer"


def lies(placement: Placement, *, key: tuple[str, ...] = ()) -> dict[str, Any]:
    """The `info` of a table that lies there.

    key: the columns of its primary key while it is distributed, where they are others than on one PostgreSQL. A key
    that contains the customer is larger, and only a cluster needs it.
    """
    return {_PLACEMENT: placement, _KEY: key}


def placement_of(table: Table) -> Placement | None:
    """Where a table lies; None if it does not say."""
    found: Placement | None = table.info.get(_PLACEMENT)
    return found


def distributed_key_of(table: Table) -> tuple[str, ...]:
    """The columns of its primary key while it is distributed; none if they are those of one PostgreSQL."""
    found: tuple[str, ...] = table.info[_KEY]
    return found


def placements() -> Mapping[str, Placement]:
    """Where each table lies, by its name, in an order in which they can be moved there.

    `store.tables` has to be imported. Raises KeyError for a table that does not say.
    """
    by_name = {table.name: table.info[_PLACEMENT] for table in metadata.sorted_tables}
    # All others are colocated with the anchor, so it comes first.
    return {ANCHOR: by_name[ANCHOR]} | by_name
