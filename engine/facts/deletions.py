"""Deletes metrics and subscriptions that nothing uses, while ingest continues. See `store.accounts.deletions`."""

from collections.abc import Awaitable, Callable

from runtime.clock import Clock
from store.accounts import deletions, uses
from store.accounts.deletions import FactKey, FactKind
from store.accounts.uses import FactInUse, User, UserKind
from store.audit import writing
from store.audit.entries import NewEntry
from store.identity import organizations
from store.postgres.database import Connection, Database, driver


class FactDeletions:
    """Deletes metrics and subscriptions."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def check(self, organization_id: int, key: FactKey) -> None:
        """Raises FactInUse if something uses the fact."""
        async with self._database.transaction() as connection:
            await _refuse_used(connection, organization_id, key)

    async def delete(
        self,
        organization_id: int,
        key: FactKey,
        entry_of: Callable[[Connection], Awaitable[NewEntry | None]],
    ) -> None:
        """Removes the fact, which exists. Raises FactInUse.

        entry_of: makes the entry of the audit log from the fact as it is stored; None if there is none any more.
        """
        await self.check(organization_id, key)
        async with self._database.transaction() as connection:
            begun = await deletions.begin(connection, organization_id, key)
        # Usage that was stored before `begin` is found here. Later usage cancels the deletion.
        await self.check(organization_id, key)
        async with self._database.transaction() as connection:
            epoch = await organizations.begin_change(connection, organization_id)
            if not await deletions.is_noted(connection, organization_id, key, begun):
                raise FactInUse(key.ids, User(UserKind.USAGE))
            if (user := await _user(connection, organization_id, key, since=begun)) is not None:
                raise FactInUse(key.ids, user)
            entry = await entry_of(connection)
            await deletions.finish(connection, organization_id, key, epoch)
            if entry is not None:
                await writing.write(await driver(connection), organization_id, [entry], self._clock.now())


async def _refuse_used(connection: Connection, organization_id: int, key: FactKey) -> None:
    user = await _user(connection, organization_id, key)
    if user is None and await _has_usage(connection, organization_id, key):
        user = User(UserKind.USAGE)
    if user is not None:
        raise FactInUse(key.ids, user)


async def _user(connection: Connection, organization_id: int, key: FactKey, *, since: int = -1) -> User | None:
    """What uses the fact besides usage. since: see `uses.of_metric`."""
    if key.kind is FactKind.METRIC:
        return await uses.of_metric(connection, organization_id, key.fact_id, since=since)
    return await uses.of_subscription(connection, organization_id, key.customer_id, key.fact_id, since=since)


async def _has_usage(connection: Connection, organization_id: int, key: FactKey) -> bool:
    if key.kind is FactKind.METRIC:
        return await uses.metric_by_usage(connection, organization_id, key.fact_id)
    return await uses.subscription_by_usage(
        connection, organization_id, customer_id=key.customer_id, subscription_id=key.fact_id
    )
