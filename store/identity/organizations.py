"""Organizations, and the lock and epoch that keep ingest and changes of the rules apart.

An ingest transaction holds the organization's advisory lock shared and reads its epoch; a change of alerts or of
accounts holds it exclusively, writes, and raises the epoch. So every event is evaluated either under the rules
before a change or under those after it, and a cache of the rules is valid exactly while the epoch stands.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from store.postgres.database import driver
from store.tables.accounts import organization

DEFAULT_ORGANIZATION = "default"

_LOCK_CLASS = 0x7469  # the first half of every organization's advisory lock


@dataclass(frozen=True, slots=True)
class Organization:
    """A tenant: the number that every row carries, and the name that people use."""

    organization_id: int
    name: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands about an organization until the end of a transaction: the epoch of its rules, and its name."""

    epoch: int
    name: str


async def get_or_create(connection: AsyncConnection, name: str, now: datetime) -> int:
    """The id of the organization of that name, which is created when there is none."""
    found = select(organization.c.organization_id).where(organization.c.name == name)
    existing = await connection.scalar(found)
    if existing is None:
        await connection.execute(insert(organization).values(name=name, create_time=now).on_conflict_do_nothing())
        existing = await connection.scalar(found)
    assert existing is not None
    return int(existing)


async def find(connection: AsyncConnection, name: str) -> int | None:
    """The id of the organization of that name, if there is one."""
    found = await connection.scalar(select(organization.c.organization_id).where(organization.c.name == name))
    return None if found is None else int(found)


async def share(connection: AsyncConnection, organization_id: int) -> int:
    """Keeps changes of the rules out until the transaction ends; returns the epoch that stands until then."""
    return (await hold(connection, organization_id)).epoch


async def hold(connection: AsyncConnection, organization_id: int) -> Standing:
    """Keeps changes of the rules and of the name out until the transaction ends; returns what stands until then."""
    raw = await driver(connection)
    # One round trip, but two statements: the snapshot of the second has to be younger than the lock.
    async with raw.pipeline():
        await raw.execute("SELECT pg_advisory_xact_lock_shared(%s, %s)", (_LOCK_CLASS, organization_id))
        cursor = await raw.execute(
            "SELECT epoch, name FROM organization WHERE organization_id = %s", (organization_id,)
        )
    row = await cursor.fetchone()
    assert row is not None, f"organization {organization_id} does not exist"
    return Standing(int(row[0]), row[1])


async def rename(connection: AsyncConnection, organization_id: int, name: str) -> None:
    """Gives an organization another name, which no other one may have; waits until no ingest is under way.

    Every row belongs to its id, and nothing that has to happen once is known by its name. Notifications that exist
    keep the ids that were made with the old one.
    """
    await connection.execute(select(func.pg_advisory_xact_lock(_LOCK_CLASS, organization_id)))
    await connection.execute(
        update(organization).where(organization.c.organization_id == organization_id).values(name=name)
    )


async def change(connection: AsyncConnection, organization_id: int) -> int:
    """Waits until no ingest is under way, keeps it out until the transaction ends, and raises the epoch.

    Returns the new epoch, which the changed rows carry as `changed_epoch`.
    """
    await connection.execute(select(func.pg_advisory_xact_lock(_LOCK_CLASS, organization_id)))
    epoch = await connection.scalar(
        update(organization)
        .where(organization.c.organization_id == organization_id)
        .values(epoch=organization.c.epoch + 1)
        .returning(organization.c.epoch)
    )
    assert epoch is not None, f"organization {organization_id} does not exist"
    return int(epoch)
