"""WebhookService: endpoints and their secrets."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from generated.tidemark.v1 import endpoint_pb2
from generated.tidemark.v1 import webhook_service_pb2 as messages
from runtime.clock import Clock
from server.calls.audit_trail import record
from server.calls.context import Context
from server.calls.current_call import current_organization
from server.calls.idempotency import read_request_id
from server.calls.paging import BY_TIME, after_time_and_id, read_page
from server.calls.validate_only import transaction_of
from server.calls.validation import Violations
from server.mapping.audited_resources import changed
from server.mapping.endpoints import (
    EndpointUpdate,
    canonical,
    endpoint_message,
    read_filter,
    read_grace,
    read_new_endpoint,
    read_scheme,
    read_update,
)
from server.mapping.list_order import read_newest_first
from server.webhooks.errors import endpoint_not_found, no_secret_key
from server.webhooks.secret_answers import answer_with_secret
from store.endpoints import endpoints, lifecycle
from store.endpoints import secrets as endpoint_secrets
from store.endpoints.rows import Endpoint, EndpointState
from store.postgres.database import Connection, Database
from webhooks.secret_box import SecretBox
from webhooks.url_policy import UrlPolicy

_HIDDEN = ("headers", "credentials")  # fields whose values the audit log does not show


class EndpointHandlers:
    """Serves the RPCs for endpoints.

    box: encrypts secrets; None where the operator has set no master key. quota: of an organization's endpoints.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        policy: UrlPolicy,
        box: SecretBox | None,
        quota: Callable[[int], int | None] = lambda _: None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._policy = policy
        self._box = box
        self._quota = quota

    async def CreateEndpoint(
        self, request: messages.CreateEndpointRequest, context: Context
    ) -> messages.CreateEndpointResponse:
        """Creates an endpoint. Only this answer contains its secret."""
        violations = Violations()
        read_request_id(violations, request.request_id)
        new = read_new_endpoint(violations, request, self._policy)
        violations.raise_if_any()
        box = self._sealing_box()

        async def create(connection: Connection) -> tuple[messages.CreateEndpointResponse, str]:
            organization_id = current_organization().organization_id
            created = await endpoints.create(
                connection, organization_id, new, box, now=self._clock.now(), quota=self._quota(organization_id)
            )
            [shown] = await self._shown(connection, [created.endpoint])
            await record(connection, created.endpoint.create_time, changed(None, shown))
            return messages.CreateEndpointResponse(endpoint=shown), created.secret

        return await answer_with_secret(
            self._database, self._clock, box, request, messages.CreateEndpointResponse, create
        )

    async def GetEndpoint(
        self, request: messages.GetEndpointRequest, context: Context
    ) -> messages.GetEndpointResponse:
        """One endpoint."""
        endpoint_id = _read_id(request.endpoint_id)
        async with self._database.transaction() as connection:
            found = await endpoints.get(connection, current_organization().organization_id, endpoint_id)
            [shown] = await self._shown(connection, [_found(found, endpoint_id)])
        return messages.GetEndpointResponse(endpoint=shown)

    async def ListEndpoints(
        self, request: messages.ListEndpointsRequest, context: Context
    ) -> messages.ListEndpointsResponse:
        """A page of endpoints, the oldest first unless the request says otherwise."""
        violations = Violations()
        wanted = read_filter(violations, request)
        newest_first = read_newest_first(violations, request.order)
        bound_to = (*canonical(wanted), str(newest_first))
        page = read_page(violations, request.page_size, request.page_token, "ListEndpoints", bound_to, BY_TIME)
        violations.raise_if_any()
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            rows = await endpoints.list_page(
                connection,
                organization_id,
                wanted,
                after=after_time_and_id(page),
                limit=page.limit,
                newest_first=newest_first,
            )
            total = await endpoints.count(connection, organization_id, wanted) if request.include_total_size else None
            shown = await self._shown(connection, rows)
        answer = messages.ListEndpointsResponse(total_size=total)
        page = await page.cut_into(answer.endpoints, shown)
        answer.next_page_token = page.next_token(rows, lambda row: (row.create_time, row.endpoint_id))
        return answer

    async def UpdateEndpoint(
        self, request: messages.UpdateEndpointRequest, context: Context
    ) -> messages.UpdateEndpointResponse:
        """Changes the fields that the mask names."""
        violations = Violations()
        changes = read_update(violations, request, self._policy)
        violations.raise_if_any()
        box = self._sealing_box() if changes.settings.credentials is not None else self._box
        async with transaction_of(self._database, request.validate_only) as connection:
            before = await self._locked(
                connection, changes.endpoint_id, disables=changes.state is EndpointState.DISABLED
            )
            updated = _found(await self._update(connection, changes, box), changes.endpoint_id)
            shown = await self._recorded(connection, before, updated, changes.fields)
        return messages.UpdateEndpointResponse(endpoint=shown)

    async def EnableEndpoint(
        self, request: messages.EnableEndpointRequest, context: Context
    ) -> messages.EnableEndpointResponse:
        """Enables an endpoint, so that it gets notifications again."""
        endpoint_id = _read_id(request.endpoint_id)
        async with transaction_of(self._database, request.validate_only) as connection:
            before = await self._locked(connection, endpoint_id)
            enabled = await lifecycle.enable(
                connection, current_organization().organization_id, endpoint_id, now=self._clock.now()
            )
            shown = await self._recorded(connection, before, _found(enabled, endpoint_id))
        return messages.EnableEndpointResponse(endpoint=shown)

    async def DisableEndpoint(
        self, request: messages.DisableEndpointRequest, context: Context
    ) -> messages.DisableEndpointResponse:
        """Disables an endpoint, and cancels its deliveries that wait."""
        endpoint_id = _read_id(request.endpoint_id)
        async with transaction_of(self._database, request.validate_only) as connection:
            before = await self._locked(connection, endpoint_id, disables=True)
            disabled = await lifecycle.disable_on_request(
                connection, current_organization().organization_id, endpoint_id, now=self._clock.now()
            )
            shown = await self._recorded(connection, before, _found(disabled, endpoint_id))
        return messages.DisableEndpointResponse(endpoint=shown)

    async def RotateSecret(
        self, request: messages.RotateSecretRequest, context: Context
    ) -> messages.RotateSecretResponse:
        """Creates another secret. The older ones sign until the grace ends."""
        violations = Violations()
        endpoint_id = violations.identifier("endpoint_id", request.endpoint_id)
        read_request_id(violations, request.request_id)
        grace = read_grace(violations, request)
        scheme = read_scheme(violations, request.signature_scheme)
        violations.raise_if_any()
        box = self._sealing_box()
        organization_id = current_organization().organization_id

        async def rotate(connection: Connection) -> tuple[messages.RotateSecretResponse, str]:
            found, now = await self._locked(connection, endpoint_id), self._clock.now()
            [before] = await self._shown(connection, [found])
            secret = await endpoint_secrets.rotate(
                connection, organization_id, endpoint_id, scheme, grace, box, now=now
            )
            [shown] = await self._shown(connection, [found])
            await record(connection, now, changed(before, shown))
            return messages.RotateSecretResponse(endpoint=shown), secret

        return await answer_with_secret(
            self._database, self._clock, box, request, messages.RotateSecretResponse, rotate
        )

    async def DeleteEndpoint(
        self, request: messages.DeleteEndpointRequest, context: Context
    ) -> messages.DeleteEndpointResponse:
        """Deletes an endpoint, and cancels its deliveries that wait."""
        endpoint_id = _read_id(request.endpoint_id)
        async with transaction_of(self._database, request.validate_only) as connection:
            before, now = await self._locked(connection, endpoint_id, disables=True), self._clock.now()
            [shown] = await self._shown(connection, [before])
            await lifecycle.delete_endpoint(connection, current_organization().organization_id, endpoint_id, now)
            await record(connection, now, changed(shown, None))
        return messages.DeleteEndpointResponse()

    async def _update(
        self, connection: Connection, changes: EndpointUpdate, box: SecretBox | None
    ) -> Endpoint | None:
        """The endpoint after the changes; None when there is none."""
        organization_id, endpoint_id = current_organization().organization_id, changes.endpoint_id
        now = self._clock.now()
        # The state first: to disable an endpoint takes the strongest lock of its row.
        match changes.state:
            case EndpointState.DISABLED:
                found = await lifecycle.disable_on_request(connection, organization_id, endpoint_id, now=now)
            case EndpointState.ENABLED:
                found = await lifecycle.enable(connection, organization_id, endpoint_id, now=now)
            case None:
                found = await endpoints.get(connection, organization_id, endpoint_id)
        if found is None or not changes.fields:
            return found
        return await endpoints.update_settings(
            connection, organization_id, endpoint_id, changes.settings, changes.fields, box, now=now
        )

    async def _locked(self, connection: Connection, endpoint_id: str, *, disables: bool = False) -> Endpoint:
        """The endpoint before a change, locked. disables: the change disables it, which takes a stronger lock.

        Raises NotFound.
        """
        found = await lifecycle.lock(
            connection, current_organization().organization_id, endpoint_id, against_fan_out=disables
        )
        return _found(found, endpoint_id)

    async def _recorded(
        self, connection: Connection, before: Endpoint, after: Endpoint, fields: Sequence[str] = ()
    ) -> endpoint_pb2.Endpoint:
        """The endpoint as the answer shows it; records its change in the audit log, if there is one.

        fields: that an update sets. New credentials are not compared with the stored ones, so they count as changed.
        """
        [shown] = await self._shown(connection, [after])
        hidden = [name for name in _HIDDEN if name in fields]
        if before.headers == after.headers and "headers" in hidden:
            hidden.remove("headers")
        if hidden or replace(before, update_time=after.update_time) != after:
            was = endpoint_message(before, ())
            was.signing_keys.extend(shown.signing_keys)
            await record(connection, self._clock.now(), changed(was, shown, hidden=hidden))
        return shown

    def _sealing_box(self) -> SecretBox:
        """The box to encrypt secrets with. Raises FailedPrecondition where the operator has set no master key."""
        if self._box is None:
            raise no_secret_key()
        return self._box

    async def _shown(self, connection: Connection, rows: list[Endpoint]) -> list[endpoint_pb2.Endpoint]:
        """The endpoints with the keys that sign now, as answers show them."""
        keys = await endpoint_secrets.signing_keys(
            connection, current_organization().organization_id, [row.endpoint_id for row in rows], self._box
        )
        return [endpoint_message(row, keys.get(row.endpoint_id, [])) for row in rows]


def _read_id(endpoint_id: str) -> str:
    violations = Violations()
    violations.identifier("endpoint_id", endpoint_id)
    violations.raise_if_any()
    return endpoint_id


def _found(found: Endpoint | None, endpoint_id: str) -> Endpoint:
    if found is None:
        raise endpoint_not_found(endpoint_id)
    return found
