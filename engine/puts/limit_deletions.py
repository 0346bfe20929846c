"""Deletions of limits: what they leave without a limit is evaluated, as with a changed limit."""

from collections.abc import Callable

from engine.changes.groups import ChangeGroups
from engine.changes.open_change import OpenChange
from engine.puts.changed_limit import LimitedAlerts
from engine.puts.customer_evaluations import CustomerEvaluations
from store.audit.entries import NewEntry
from store.identity.organizations import Organization
from store.limits import changes as limit_changes
from store.limits import limits
from store.limits.limits import StoredLimit


class LimitDeletions:
    """Deletes limits."""

    def __init__(self, groups: ChangeGroups, evaluations: CustomerEvaluations) -> None:
        self._groups = groups
        self._evaluations = evaluations

    async def delete(
        self,
        organization: Organization,
        limit_id: str,
        describe: Callable[[StoredLimit], NewEntry],
        *,
        validate_only: bool,
    ) -> bool:
        """Deletes a limit, and evaluates its customer; returns False if there is no such limit.

        describe: makes the entry of the audit log from the limit as it was.
        Begins backfills if the limit is a plan's: wake them. Raises DatabaseUnavailable.
        """
        organization_id = organization.organization_id
        limited = LimitedAlerts()
        async with self._groups.transaction(organization_id) as connection:
            stored = await limits.get(connection, organization_id, limit_id)
            if stored is None:
                return False
            await limited.read(connection, organization_id, stored.subject)

        async def work(change: OpenChange) -> StoredLimit | None:
            gone = await limit_changes.delete(change.driver, organization_id, limit_id, change.epoch, change.now)
            if gone is not None:
                await limited.begin_backfills(change, gone.subject)
                change.trail.append(describe(gone))
            return gone

        deleted = await self._groups.run(organization_id, work, keep=not validate_only)
        customer_id = None if deleted is None else deleted.subject.customer_id
        if customer_id is not None and not validate_only:
            await self._evaluations.evaluate(organization, customer_id)
        return deleted is not None
