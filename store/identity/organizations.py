"""Organizations, each with the lock and the epoch that separate ingest from changes of alerts and facts.

An ingest transaction holds the organization's advisory lock shared and reads the epoch. A change of alerts or facts
holds the lock exclusively, writes, and raises the epoch. So each event is evaluated either before or after a change,
by all servers, and cached rules are valid for exactly one epoch.

On a cluster, ingest also runs at the nodes of its customers; `store.identity.node_epochs` says how both are there.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from store.identity import node_epochs
from store.identity.node_epochs import LOCK_CLASS
from store.postgres.database import Cursor, DriverConnection, driver
from store.postgres.distributed import marker_of, on_cluster
from store.tables.accounts import organization

DEFAULT_ORGANIZATION = "default"


@dataclass(frozen=True, slots=True)
class Organization:
    """A tenant: the number in each of its rows, and its name."""

    organization_id: int
    name: str


@dataclass(frozen=True, slots=True)
class LockedOrganization:
    """What cannot change of an organization while a transaction holds its lock."""

    epoch: int
    name: str


async def get_or_create(connection: AsyncConnection, name: str, now: datetime) -> int:
    """The id of the organization of that name; creates it if it does not exist."""
    found = select(organization.c.organization_id).where(organization.c.name == name)
    existing = await connection.scalar(found)
    if existing is None:
        await connection.execute(insert(organization).values(name=name, create_time=now).on_conflict_do_nothing())
        existing = await connection.scalar(found)
    assert existing is not None
    return int(existing)


async def find(connection: AsyncConnection, name: str) -> int | None:
    """The id of the organization of that name, or None."""
    found = await connection.scalar(select(organization.c.organization_id).where(organization.c.name == name))
    return None if found is None else int(found)


async def names(connection: AsyncConnection, organization_ids: Collection[int]) -> dict[int, str]:
    """The names of organizations that exist, by their ids."""
    found = select(organization.c.organization_id, organization.c.name)
    rows = await connection.execute(found.where(organization.c.organization_id.in_(organization_ids)))
    return {int(row.organization_id): row.name for row in rows}


async def current_epoch(connection: AsyncConnection, organization_id: int) -> int:
    """The epoch, without a lock: another transaction may raise it at any time."""
    epoch = await connection.scalar(
        select(organization.c.epoch).where(organization.c.organization_id == organization_id)
    )
    assert epoch is not None, f"organization {organization_id} does not exist"
    return int(epoch)


async def send_current_epoch(connection: DriverConnection, organization_id: int) -> Cursor:
    """Sends the statement of `current_epoch`; `epoch_of` reads its result."""
    return await connection.execute("SELECT epoch FROM organization WHERE organization_id = %s", (organization_id,))


async def epoch_of(cursor: Cursor) -> int:
    """The result of `send_current_epoch`."""
    row = await cursor.fetchone()
    assert row is not None, "the organization does not exist"
    return int(row[0])


async def lock_shared(connection: AsyncConnection, organization_id: int) -> int:
    """Takes the organization's lock shared, so that no alert or fact changes; returns the epoch."""
    return (await lock_shared_with_name(connection, organization_id)).epoch


async def lock_shared_with_name(connection: AsyncConnection, organization_id: int) -> LockedOrganization:
    """Like `lock_shared`, and returns the name, too, which the lock also protects."""
    raw = await driver(connection)
    async with raw.pipeline():
        cursor = await send_lock_shared(raw, organization_id)
    return await locked(cursor)


async def send_lock_shared(connection: DriverConnection, organization_id: int) -> Cursor:
    """Sends the statements of `lock_shared_with_name`, within a pipeline; `locked` reads their result."""
    # Two statements: the snapshot that reads the epoch must be newer than the lock, or it misses the change that the
    # lock has waited for.
    if (marker := marker_of(connection)) is not None:
        return await node_epochs.send_lock_shared(connection, organization_id, marker)
    await connection.execute("SELECT pg_advisory_xact_lock_shared(%s, %s)", (LOCK_CLASS, organization_id))
    return await connection.execute(
        "SELECT epoch, name FROM organization WHERE organization_id = %s", (organization_id,)
    )


async def locked(cursor: Cursor) -> LockedOrganization:
    """The result of `send_lock_shared`. Raises NeedsCoordinator at a node that does not have the epoch."""
    row = await cursor.fetchone()
    if marker_of(cursor.connection) is not None:
        return LockedOrganization(*node_epochs.standing(cursor.connection, row))
    assert row is not None, "the organization does not exist"
    return LockedOrganization(int(row[0]), row[1])


async def rename(connection: AsyncConnection, organization_id: int, name: str) -> None:
    """Gives an organization another name, which must be free. Waits for ingest that is in progress.

    No row depends on the name, and nothing that must happen once is identified by it. Existing notifications keep
    their ids, which are digests of the old name.
    """
    raw = await driver(connection)
    if on_cluster(raw):
        await begin_change(connection, organization_id)
        await node_epochs.rename(raw, organization_id, name)
    else:
        await raw.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCK_CLASS, organization_id))
    await connection.execute(
        update(organization).where(organization.c.organization_id == organization_id).values(name=name)
    )


async def prepare_nodes(connection: AsyncConnection, organization_id: int) -> int | None:
    """Gives each node of a cluster the epoch of an organization, so that ingest can run there.

    Waits for ingest that is in progress, unless the nodes have it already. Then it returns the epoch that all show.
    """
    shown = await node_epochs.shown(connection, organization_id)
    if shown is None:
        await begin_change(connection, organization_id)
        await node_epochs.create(connection, organization_id)
    return shown


async def begin_change(connection: AsyncConnection, organization_id: int) -> int:
    """Takes the organization's lock exclusively until the transaction ends, and raises the epoch.

    Waits for ingest that is in progress; new ingest waits for the transaction. Returns the new epoch, which the
    changed rows store as `changed_epoch`.
    """
    raw = await driver(connection)
    everywhere: node_epochs.Everywhere | None = None
    # One round trip, but two statements: the row must not be locked before the lock is held.
    async with raw.pipeline():
        await raw.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCK_CLASS, organization_id))
        if on_cluster(raw):
            everywhere = await node_epochs.send_lock_everywhere(raw, organization_id)
        cursor = await raw.execute(
            "UPDATE organization SET epoch = epoch + 1 WHERE organization_id = %s RETURNING epoch",
            (organization_id,),
        )
    row = await cursor.fetchone()
    assert row is not None, f"organization {organization_id} does not exist"
    if everywhere is not None:
        await node_epochs.locked_everywhere(connection, organization_id, everywhere)
    return int(row[0])


async def begin_deletion(connection: AsyncConnection, organization_id: int) -> int:
    """Begins a change that deletes rows of rules or facts; returns the new epoch.

    A deleted row has no changed_epoch by which caches learn of it. So the organization says when there last was one.
    """
    epoch = await begin_change(connection, organization_id)
    await connection.execute(
        update(organization)
        .where(organization.c.organization_id == organization_id)
        .values(deletion_epoch=organization.c.epoch)
    )
    return epoch


async def deletion_epochs(connection: AsyncConnection, organization_ids: Collection[int]) -> dict[int, int]:
    """The epoch of the last deletion of each organization, without a lock."""
    rows = await connection.execute(
        select(organization.c.organization_id, organization.c.deletion_epoch).where(
            organization.c.organization_id.in_(organization_ids)
        )
    )
    return {row.organization_id: int(row.deletion_epoch) for row in rows}
