"""AccountService: the quotas of the organization."""

from importlib.metadata import version

from engine.quotas.organization_quotas import OrganizationQuotas
from generated.tidemark.v1 import account_service_pb2 as messages
from generated.tidemark.v1 import quota_pb2
from runtime.quotas import QuotaKind
from server.calls.context import Context
from server.calls.current_call import current_organization
from store.alerts import counts
from store.endpoints import endpoints
from store.endpoints.endpoints import EndpointFilter
from store.postgres.database import Database

VERSION_KEY = "tidemark-version"  # of the trailing metadata


class QuotaHandlers:
    """Serves the RPC that shows quotas. They are changed by the operator's command line only."""

    def __init__(self, database: Database, quotas: OrganizationQuotas) -> None:
        self._database = database
        self._quotas = quotas
        self._version = version("tidemark")

    async def GetQuotas(self, request: messages.GetQuotasRequest, context: Context) -> messages.GetQuotasResponse:
        """The quotas of all kinds, with what is used of them."""
        # A rare call, which every role may make. To callers without a key the version stays unknown.
        context.set_trailing_metadata((*context.trailing_metadata(), (VERSION_KEY, self._version)))
        organization_id = current_organization().organization_id
        limits, own = self._quotas.of(organization_id), self._quotas.own(organization_id)
        used: dict[QuotaKind, int | None] = {**self._quotas.use(organization_id).used()}
        async with self._database.transaction() as connection:
            if limits.get(QuotaKind.ALERTS) is not None:
                used[QuotaKind.ALERTS] = await counts.number(connection, organization_id)
            if limits.get(QuotaKind.ENDPOINTS) is not None:
                used[QuotaKind.ENDPOINTS] = await endpoints.count(connection, organization_id, EndpointFilter())
        return messages.GetQuotasResponse(
            quotas=[
                quota_pb2.Quota(
                    kind=_KINDS[kind],
                    limit=limits.get(kind),
                    used=None if limits.get(kind) is None else used[kind],
                    own=kind in own,
                )
                for kind in QuotaKind
            ]
        )


_KINDS = {kind: quota_pb2.QuotaKind.Value(f"QUOTA_KIND_{kind.name}") for kind in QuotaKind}
