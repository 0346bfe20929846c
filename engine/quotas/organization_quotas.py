"""The quotas of all organizations, as this process knows them, and the exchange with the other processes.

About once a second, a process says what the organizations with quotas use of them here, reads what the others say,
and reads the quotas that have changed. No call waits for that.
"""

import asyncio
import logging
import secrets
from collections.abc import Mapping
from datetime import datetime

from engine.quotas.use import OrganizationUse
from runtime.actions import LogAction
from runtime.backoff import Backoff
from runtime.quotas import QuotaKind, Quotas
from runtime.tasks import BackgroundTask, FailureLog
from store.identity import quotas as stored
from store.identity.quotas import OthersUse, Use
from store.postgres.database import Database, DatabaseUnavailable

IDLE_EXCHANGES = 60  # after so many in which an organization used nothing, it is forgotten
FORGET_EVERY = 60  # exchanges between two deletions of what processes said that have ended

logger = logging.getLogger(__name__)

_NOTHING = Use()


class OrganizationQuotas:
    """The quotas of each organization, and what it uses of them.

    defaults: of organizations that have no quota of their own of a kind.
    """

    def __init__(self, database: Database, defaults: Quotas, *, interval: float) -> None:
        """interval: seconds between two exchanges."""
        self._database = database
        self._defaults = defaults
        self._own: dict[int, Quotas] = {}
        self._merged: dict[int, Quotas] = {}  # of those with own ones
        self._changed: datetime | None = None  # the latest change that was read
        self._uses: dict[int, OrganizationUse] = {}
        self._idle: dict[int, int] = {}
        self._process_id = secrets.token_hex(8)
        self._exchanges = 0
        self._task = BackgroundTask(
            self.exchange,
            FailureLog(logger, "quotas cannot be followed", LogAction.QUOTAS_FAILED, (DatabaseUnavailable,)),
            name="quotas",
            interval=interval,
            first_pause=interval,
            backoff=Backoff(longest=interval),
        )

    async def start(self) -> None:
        """Reads the quotas, and begins to exchange. Raises DatabaseUnavailable."""
        await self.exchange()
        self._task.start()

    async def stop(self) -> None:
        """Ends the exchange. What this process said counts for a few seconds more."""
        await self._task.stop()

    def of(self, organization_id: int) -> Quotas:
        """The quotas that apply to an organization."""
        return self._merged.get(organization_id, self._defaults)

    def limit(self, organization_id: int, kind: QuotaKind) -> int | None:
        """The quota of one kind; None: not limited."""
        return self.of(organization_id).get(kind)

    def max_alerts(self, organization_id: int) -> int | None:
        """The quota of alerts; None: not limited."""
        return self.limit(organization_id, QuotaKind.ALERTS)

    def use(self, organization_id: int) -> OrganizationUse:
        """What the organization uses here; it is counted from the first call on."""
        use = self._uses.get(organization_id)
        if use is None:
            use = self._uses[organization_id] = OrganizationUse(
                self.of(organization_id), asyncio.get_running_loop().time
            )
            if use.is_limited:
                self._task.wake()  # what the others use is not known yet
        return use

    async def exchange(self) -> None:
        """Reads what has changed, and exchanges what is used. Raises DatabaseUnavailable."""
        measured = {organization_id: use.measured() for organization_id, use in self._uses.items()}
        self._forget_idle(measured)
        limited = {one: use for one, use in measured.items() if one in self._uses and self._uses[one].is_limited}
        async with self._database.transaction() as connection:
            changed = await stored.read_changed(connection, self._changed)
            others = await stored.exchange(connection, self._process_id, limited) if limited else {}
            self._exchanges += 1
            if self._exchanges % FORGET_EVERY == 0:
                await stored.forget_ended(connection)
        for one in changed:
            self._own[one.organization_id] = one.quotas
            self._merged[one.organization_id] = {**self._defaults, **one.quotas}
            self._changed = max(self._changed or one.update_time, one.update_time)
        for organization_id, use in self._uses.items():
            use.follow(self.of(organization_id), others.get(organization_id, OthersUse()))

    def own(self, organization_id: int) -> Quotas:
        """The quotas that the organization has of its own."""
        return self._own.get(organization_id, {})

    def _forget_idle(self, measured: Mapping[int, Use]) -> None:
        for organization_id, use in measured.items():
            if use != _NOTHING:
                self._idle.pop(organization_id, None)
                continue
            idle = self._idle[organization_id] = self._idle.get(organization_id, 0) + 1
            if idle > IDLE_EXCHANGES:
                del self._idle[organization_id], self._uses[organization_id]
