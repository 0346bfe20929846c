"""Limits every organization to its share of the server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine.quotas.organization_quotas import OrganizationQuotas
from runtime.quotas import QuotaKind
from server.calls import current_call, errors
from server.calls.context import Context, when_over
from server.calls.organization_shares import OrganizationShares
from server.calls.shared_errors import quota_reached
from server.interceptors.wrapping import Around
from store.identity.quotas import QuotaReached

# Calls that hold no connection while they wait. The events of EvaluateUsageBatch, and the requests of LimitService,
# wait in pipelines, which have shares of their own. The others wait for their group of changes, and take a turn for
# each transaction (`engine.changes.groups`).
_WITHOUT_CONNECTION = frozenset(
    {
        f"/tidemark.v1.AlertService/{method}"
        for method in (
            "EvaluateUsageBatch",
            "CreateAlert",
            "UpdateAlert",
            "EnableAlert",
            "DisableAlert",
            "ArchiveAlert",
            "ReleaseUniquenessKey",
            "BatchCreateAlerts",
            "BatchUpdateAlerts",
            "BatchArchiveAlerts",
        )
    }
    | {
        f"/tidemark.v1.AccountService/{method}"
        for method in ("PutCustomer", "PutSubscription", "PutLimit", "PutMetric", "DeleteLimit")
    }
    | {
        f"/tidemark.v1.LimitService/{method}"
        for method in (
            "CheckUsage",
            "BatchCheckUsage",
            "ReserveUsage",
            "SettleReservation",
            "ReleaseReservation",
            "ExtendReservation",
        )
    }
    | {"/envoy.service.auth.v3.Authorization/Check"}
)
# Of each method with a stream.
QUOTA_OF_STREAM = {
    "/tidemark.v1.AlertService/EvaluateUsage": QuotaKind.STREAMS,
    "/tidemark.v1.AlertService/WatchNotifications": QuotaKind.WATCHERS,
    "/tidemark.v1.AuditService/WatchAuditEntries": QuotaKind.WATCHERS,
    "/tidemark.v1.LimitService/EnforceUsage": QuotaKind.STREAMS,
    "/tidemark.v1.LimitService/WatchDecisions": QuotaKind.WATCHERS,
}


class LimitToShare(Around):
    """Makes a call wait for its organization's turn, and refuses calls above the organization's share, and streams
    above its quota.

    Watch streams have shares of their own (`server.alerts.subscribers.feeds`, `server.audit.watched_logs`,
    `server.enforcement.watching`).
    """

    def __init__(self, shares: OrganizationShares, quotas: OrganizationQuotas) -> None:
        self._shares = shares
        self._quotas = quotas

    @asynccontextmanager
    async def around(self, method: str, streaming: bool, context: Context) -> AsyncIterator[None]:
        """Runs the call within its organization's share."""
        caller = current_call.get().caller
        if caller is None:  # health, reflection
            yield
            return
        organization_id = caller.organization.organization_id
        if streaming:
            await self._open(method, organization_id, context)
            yield
            return
        share = self._shares.counted if method in _WITHOUT_CONNECTION else self._shares.served
        entered = False
        try:
            async with share(organization_id):
                entered = True
                yield
        except errors.ResourceExhausted as error:
            if entered:
                raise
            await errors.abort(context, error)

    async def _open(self, method: str, organization_id: int, context: Context) -> None:
        """Counts a stream until it is over."""
        if (kind := QUOTA_OF_STREAM.get(method)) is None:
            return
        use = self._quotas.use(organization_id)
        try:
            use.open(kind)
        except QuotaReached as reached:
            await errors.abort(context, quota_reached(reached))
        when_over(lambda _: use.close(kind))
        if kind is QuotaKind.STREAMS:
            try:
                stream = self._shares.open_stream(organization_id)
            except errors.ResourceExhausted as error:
                await errors.abort(context, error)
            when_over(lambda _: stream.close())
