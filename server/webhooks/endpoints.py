"""The handlers of WebhookService for endpoints and their secrets."""

from generated.tidemark.v1 import error_reason_pb2, webhook_pb2
from generated.tidemark.v1 import webhook_service_pb2 as messages
from server.calls.errors import FailedPrecondition
from server.calls.identity import current_organization
from server.calls.paging import read_page
from server.calls.validation import Violations
from server.mapping.endpoints import (
    endpoint_message,
    read_grace,
    read_new_settings,
    read_scheme,
    read_update,
)
from server.webhooks.handlers import BY_TIME, Context, Handlers, no_endpoint, time_and_id
from store.endpoints import endpoints
from store.endpoints import secrets as endpoint_secrets
from store.endpoints import switches as endpoint_switches
from store.endpoints.endpoints import MAX_ENDPOINTS, TooManyEndpoints
from store.endpoints.rows import Endpoint
from store.endpoints.secrets import MAX_LIVE, TooManySecrets
from store.postgres.database import Connection
from webhooks.signing_keys import Scheme


class EndpointHandlers(Handlers):
    """The handlers of tidemark.v1.WebhookService for endpoints."""

    async def CreateEndpoint(
        self, request: messages.CreateEndpointRequest, context: Context
    ) -> messages.CreateEndpointResponse:
        """Adds an endpoint; its secret is in this answer and in no other."""
        violations = Violations()
        settings = read_new_settings(violations, request, self._policy)
        scheme = read_scheme(violations, request.signature_scheme)
        violations.raise_if_any()
        box = self._sealing_box()
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            try:
                created = await endpoints.create(
                    connection,
                    organization_id,
                    settings,
                    box,
                    scheme=scheme or Scheme.HMAC_SHA256,
                    now=self._clock.now(),
                )
            except TooManyEndpoints:
                raise FailedPrecondition(
                    error_reason_pb2.ERROR_REASON_TOO_MANY_ENDPOINTS,
                    f"the organization has {MAX_ENDPOINTS} webhook endpoints, which is as many as it may have:"
                    " delete one first",
                    metadata={"limit": str(MAX_ENDPOINTS)},
                ) from None
            [shown] = await self._shown(connection, [created.endpoint])
        return messages.CreateEndpointResponse(endpoint=shown, secret=created.secret)

    async def GetEndpoint(
        self, request: messages.GetEndpointRequest, context: Context
    ) -> messages.GetEndpointResponse:
        """One endpoint."""
        endpoint_id = _read_id(request.endpoint_id)
        async with self._database.transaction() as connection:
            found = await endpoints.get(connection, current_organization().organization_id, endpoint_id)
            [shown] = await self._shown(connection, [_there(found, endpoint_id)])
        return messages.GetEndpointResponse(endpoint=shown)

    async def ListEndpoints(
        self, request: messages.ListEndpointsRequest, context: Context
    ) -> messages.ListEndpointsResponse:
        """A page of endpoints, the oldest first."""
        violations = Violations()
        page = read_page(violations, request.page_size, request.page_token, "ListEndpoints", (), BY_TIME)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            rows = await endpoints.list_page(
                connection, current_organization().organization_id, after=time_and_id(page), limit=page.limit
            )
            shown = await self._shown(connection, rows)
        page = page.cut(shown)
        return messages.ListEndpointsResponse(
            endpoints=page.shown(shown),
            next_page_token=page.next_token(rows, lambda row: (row.create_time, row.endpoint_id)),
        )

    async def UpdateEndpoint(
        self, request: messages.UpdateEndpointRequest, context: Context
    ) -> messages.UpdateEndpointResponse:
        """Replaces the fields that the mask names."""
        violations = Violations()
        endpoint_id = violations.identifier("endpoint_id", request.endpoint_id)
        settings, fields = read_update(violations, request, self._policy)
        violations.raise_if_any()
        box = self._sealing_box() if settings.credentials is not None else self._box
        async with self._database.transaction() as connection:
            updated = await endpoints.update_settings(
                connection,
                current_organization().organization_id,
                endpoint_id,
                settings,
                fields,
                box,
                now=self._clock.now(),
            )
            [shown] = await self._shown(connection, [_there(updated, endpoint_id)])
        return messages.UpdateEndpointResponse(endpoint=shown)

    async def EnableEndpoint(
        self, request: messages.EnableEndpointRequest, context: Context
    ) -> messages.EnableEndpointResponse:
        """Lets an endpoint get notifications again."""
        endpoint_id = _read_id(request.endpoint_id)
        async with self._database.transaction() as connection:
            enabled = await endpoint_switches.enable(
                connection, current_organization().organization_id, endpoint_id, now=self._clock.now()
            )
            [shown] = await self._shown(connection, [_there(enabled, endpoint_id)])
        return messages.EnableEndpointResponse(endpoint=shown)

    async def DisableEndpoint(
        self, request: messages.DisableEndpointRequest, context: Context
    ) -> messages.DisableEndpointResponse:
        """Stops deliveries to an endpoint and cancels what waits for it."""
        endpoint_id = _read_id(request.endpoint_id)
        async with self._database.transaction() as connection:
            disabled = await endpoint_switches.disable_on_request(
                connection, current_organization().organization_id, endpoint_id, now=self._clock.now()
            )
            [shown] = await self._shown(connection, [_there(disabled, endpoint_id)])
        return messages.DisableEndpointResponse(endpoint=shown)

    async def RotateSecret(
        self, request: messages.RotateSecretRequest, context: Context
    ) -> messages.RotateSecretResponse:
        """Makes another secret; the older ones sign until the grace ends."""
        violations = Violations()
        endpoint_id = violations.identifier("endpoint_id", request.endpoint_id)
        grace = read_grace(violations, request)
        scheme = read_scheme(violations, request.signature_scheme)
        violations.raise_if_any()
        box = self._sealing_box()
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            found = _there(await endpoint_switches.lock(connection, organization_id, endpoint_id), endpoint_id)
            try:
                secret = await endpoint_secrets.rotate(
                    connection, organization_id, endpoint_id, scheme, grace, box, now=self._clock.now()
                )
            except TooManySecrets:
                raise FailedPrecondition(
                    error_reason_pb2.ERROR_REASON_TOO_MANY_SECRETS,
                    f"{MAX_LIVE} secrets of the endpoint sign, which is as many as may:"
                    " wait for the grace of one to end, or rotate with a grace of 0",
                    metadata={"endpoint_id": endpoint_id, "limit": str(MAX_LIVE)},
                ) from None
            [shown] = await self._shown(connection, [found])
        return messages.RotateSecretResponse(endpoint=shown, secret=secret)

    async def DeleteEndpoint(
        self, request: messages.DeleteEndpointRequest, context: Context
    ) -> messages.DeleteEndpointResponse:
        """Removes an endpoint and cancels what waits for it."""
        endpoint_id = _read_id(request.endpoint_id)
        async with self._database.transaction() as connection:
            deleted = await endpoint_switches.delete_endpoint(
                connection, current_organization().organization_id, endpoint_id, self._clock.now()
            )
        if not deleted:
            raise no_endpoint(endpoint_id)
        return messages.DeleteEndpointResponse()

    async def _shown(self, connection: Connection, rows: list[Endpoint]) -> list[webhook_pb2.Endpoint]:
        """The endpoints as answers show them, with the keys that sign now."""
        keys = await endpoint_secrets.signing_keys(
            connection, current_organization().organization_id, [row.endpoint_id for row in rows], self._box
        )
        return [endpoint_message(row, keys.get(row.endpoint_id, [])) for row in rows]


def _read_id(endpoint_id: str) -> str:
    violations = Violations()
    violations.identifier("endpoint_id", endpoint_id)
    violations.raise_if_any()
    return endpoint_id


def _there(found: Endpoint | None, endpoint_id: str) -> Endpoint:
    if found is None:
        raise no_endpoint(endpoint_id)
    return found
