"""Reservations that are locked, or compared with what was read: see `store.postgres.row_locks` for the order."""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from store.citus.shard_tables import ShardsOf, in_shard, parts_of
from store.enforcement import reservations
from store.enforcement.records import Record
from store.enforcement.reservations import COLUMNS, keys_of, times_of
from store.postgres import row_locks
from store.postgres.database import DriverConnection
from store.postgres.distributed import on_cluster
from store.postgres.row_locks import Sent

# Of reservations by their keys, in one order.
_LOCK = f"""
SELECT {COLUMNS}
FROM unnest(string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(reservation_ids)s, E'\t'))
    AS i (customer_id, reservation_id)
JOIN reservation r ON r.organization_id = %(organization_id)s
    AND r.customer_id = i.customer_id COLLATE "C" AND r.reservation_id = i.reservation_id COLLATE "C"
ORDER BY r.customer_id, r.reservation_id FOR UPDATE OF r
""".encode()
# Of a cluster: those of the customers of one shard.
_LOCK_OF_SHARD = _LOCK.replace(b"ORDER BY", b"WHERE r.customer_id = ANY(%(of_shard)s)\nORDER BY")


async def send_lock(
    connection: DriverConnection,
    organization_id: int,
    keys: Collection[tuple[str, str]],
    shards: ShardsOf | None = None,
) -> Sent:
    """Like `reservations.send_read`, and locks: nothing is added to what they hold until the transaction ends."""
    if shards is not None or not on_cluster(connection):
        sent, listed = [], list(keys)
        for shard, indexes in parts_of([customer_id for customer_id, _ in listed], shards):
            part = keys_of(organization_id, [listed[index] for index in indexes])
            sent.append(await connection.execute(_LOCK if shard is None else in_shard(_LOCK, shard), part))
        return sent
    by_customer: dict[str, list[str]] = {}
    for customer_id, reservation_id in keys:
        by_customer.setdefault(customer_id, []).append(reservation_id)

    def of_shard(customer_ids: list[str]) -> dict[str, object]:
        part = keys_of(organization_id, [(one, each) for one in customer_ids for each in by_customer[one]])
        return {**part, "of_shard": customer_ids}

    return await row_locks.send_by_shard(connection, _LOCK_OF_SHARD, by_customer, of_shard)


async def read_held(
    connection: DriverConnection,
    organization_id: int,
    keys: Collection[tuple[str, str]],
    shards: ShardsOf | None = None,
) -> dict[tuple[str, str], Record]:
    """As `reservations.read`, by a transaction that holds the wallets of all whose meters count what they hold.

    Another transaction that held one of these wallets may have added to what a reservation of another customer holds.
    The nodes of a cluster commit one after the other: the wallet can be free while that does not show yet. So the
    rows are locked there, which waits for it.
    """
    if on_cluster(connection):
        return await reservations.records(await send_lock(connection, organization_id, keys, shards))
    return await reservations.read(connection, organization_id, keys)


# Reservations as they were read, beside what is stored now.
_COMPARED = """
SELECT i.position FROM unnest(
    string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(reservation_ids)s, E'\t'),
    string_to_array(%(states)s, E'\t'), string_to_array(%(expire_times)s, E'\t')::timestamptz[],
    string_to_array(%(settled)s, E'\t')::boolean[], string_to_array(%(charges)s, E'\t')::integer[]
) WITH ORDINALITY AS i (customer_id, reservation_id, state, expire_time, settled, charges, position)
{join} reservation r ON r.organization_id = %(organization_id)s
    AND r.customer_id = i.customer_id COLLATE "C" AND r.reservation_id = i.reservation_id COLLATE "C"
WHERE (r.state, r.expire_time, r.settled_quantity IS NOT NULL, coalesce(jsonb_array_length(r.charges), 0))
    IS {distinct} FROM (i.state, i.expire_time, i.settled, i.charges)
"""
# Those that have changed, or are gone, since they were read.
_OTHERS = _COMPARED.format(join="LEFT JOIN", distinct="DISTINCT").encode()
# Those of the customers of a shard that have not, locked: see `read_held`.
_SAME = (
    _COMPARED.format(join="JOIN", distinct="NOT DISTINCT")
    + "AND r.customer_id = ANY(%(of_shard)s) ORDER BY r.customer_id, r.reservation_id FOR UPDATE OF r"
).encode()


class Comparison(NamedTuple):
    """Statements about records that were read. rows: how many they have if none of them has changed or is gone."""

    cursors: Sent
    rows: int

    @property
    def differs(self) -> bool:
        """Whether any of the records has changed, or is gone. The statements have been executed."""
        return sum(cursor.rowcount for cursor in self.cursors) != self.rows


async def send_compare(connection: DriverConnection, organization_id: int, read: Iterable[Record]) -> Comparison:
    """Sends the statement that finds whether any of the records has changed, or is gone, since it was read."""
    records = list(read)
    if not on_cluster(connection):
        return Comparison([await connection.execute(_OTHERS, _as_read(organization_id, records))], 0)
    by_customer: dict[str, list[Record]] = {}
    for record in records:
        by_customer.setdefault(record.reservation.usage.customer_id, []).append(record)

    def of_shard(customer_ids: list[str]) -> dict[str, object]:
        part = [record for customer_id in customer_ids for record in by_customer[customer_id]]
        return {**_as_read(organization_id, part), "of_shard": customer_ids}

    return Comparison(await row_locks.send_by_shard(connection, _SAME, by_customer, of_shard), len(records))


def _as_read(organization_id: int, records: Sequence[Record]) -> dict[str, object]:
    found = [record.reservation for record in records]
    return {
        "organization_id": organization_id,
        "customer_ids": "\t".join([one.usage.customer_id for one in found]),
        "reservation_ids": "\t".join([one.reservation_id for one in found]),
        "states": "\t".join([one.state for one in found]),
        "expire_times": times_of([one.expire_time for one in found]),
        "settled": "\t".join(["false" if one.settled_quantity is None else "true" for one in found]),
        "charges": "\t".join([str(len(record.held)) for record in records]),
    }
