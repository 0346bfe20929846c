"""envoy.service.auth.v3.Authorization: Envoy asks before it forwards a request, and a limit answers.

A call is a CheckUsage or a ReserveUsage, whose fields come from the route and from headers of the request. It needs
the same role as that method, and does the same.
"""

from http import HTTPStatus

import grpc

from generated.envoy.service.auth.v3 import external_authorization_pb2 as envoy
from generated.tidemark.v1 import decision_pb2, error_reason_pb2, reservation_pb2
from generated.tidemark.v1 import limit_service_pb2 as messages
from server.authentication.access import check_customer, check_role
from server.calls import current_call
from server.calls.context import Context
from server.calls.errors import ApiError, FailedPrecondition, InvalidArgument, PermissionDenied, mapped
from server.calls.validation import Violations, to_datetime
from server.enforcement import gateway_answers
from server.enforcement.checks import CheckHandlers
from server.enforcement.errors import error_table
from server.enforcement.gateway_routes import Wanted, read_wanted
from server.enforcement.reservations import ReservationHandlers

_LIMIT_SERVICE = messages.DESCRIPTOR.services_by_name["LimitService"].full_name

# What a repetition of the same request does not change. A call that fails in another way ends with an error, and
# failure_mode_allow of Envoy says what happens to the request. It must not say that about a mistake in a route: that
# would be a limit which is never asked, unnoticed.
_FINAL = {
    grpc.StatusCode.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    grpc.StatusCode.FAILED_PRECONDITION: HTTPStatus.CONFLICT,
}


class ExternalAuthorizationHandlers:
    """Serves Check."""

    def __init__(self, checks: CheckHandlers, reservations: ReservationHandlers) -> None:
        self._checks = checks
        self._reservations = reservations
        self._errors = error_table()

    async def Check(self, request: envoy.CheckRequest, context: Context) -> envoy.CheckResponse:
        """Whether a request may pass. Raises what may be different when Envoy asks again."""
        attributes = request.attributes
        violations = Violations()
        wanted = read_wanted(violations, attributes.context_extensions, attributes.request.http.headers)
        if violations.found:
            return _misconfigured(violations.error())
        try:
            if isinstance(wanted.message, messages.ReserveUsageRequest):
                return await self._reserve(wanted.message, wanted, context)
            return await self._check(wanted.message, wanted, context)
        except InvalidArgument as error:
            return _invalid(error, wanted)
        except PermissionDenied as error:
            return gateway_answers.refused(HTTPStatus.INTERNAL_SERVER_ERROR, error, _not_permitted(error))
        except Exception as error:
            if isinstance(error, ApiError) or type(error) in self._errors:
                known = mapped(error, self._errors)
                if (code := _FINAL.get(known.code)) is not None:
                    return gateway_answers.refused(code, known, known.message)
            raise

    async def _check(
        self, message: messages.CheckUsageRequest, wanted: Wanted, context: Context
    ) -> envoy.CheckResponse:
        _check_access("CheckUsage", message)
        decision = (await self._checks.CheckUsage(message, context)).decision
        if decision.outcome == decision_pb2.DECISION_OUTCOME_DENIED:
            return gateway_answers.denied(decision)
        return gateway_answers.allowed(
            {
                gateway_answers.CUSTOMER_HEADER: wanted.customer_id,
                gateway_answers.GRANTED_HEADER: decision.granted_quantity,
            }
        )

    async def _reserve(
        self, message: messages.ReserveUsageRequest, wanted: Wanted, context: Context
    ) -> envoy.CheckResponse:
        _check_access("ReserveUsage", message)
        answer = await self._reservations.ReserveUsage(message, context)
        if answer.decision.outcome == decision_pb2.DECISION_OUTCOME_DENIED:
            return gateway_answers.denied(answer.decision)
        if answer.reservation.state != reservation_pb2.RESERVATION_STATE_OPEN:
            # Another request had this id, and the application has settled it: this one would pass without a hold.
            state = reservation_pb2.ReservationState.Name(answer.reservation.state)
            raise FailedPrecondition(
                error_reason_pb2.ERROR_REASON_RESERVATION_ENDED,
                f"the reservation {message.reservation_id!r} has ended ({state}): send a request with a new id in"
                f" {wanted.reservation_header}",
                metadata={
                    "customer_id": wanted.customer_id,
                    "reservation_id": message.reservation_id,
                    "state": state,
                },
            )
        return gateway_answers.allowed(
            {
                gateway_answers.CUSTOMER_HEADER: wanted.customer_id,
                gateway_answers.RESERVATION_HEADER: message.reservation_id,
                gateway_answers.GRANTED_HEADER: answer.decision.granted_quantity,
                gateway_answers.EXPIRY_HEADER: to_datetime(answer.reservation.expire_time).isoformat(),
            }
        )


def _check_access(method: str, message: messages.CheckUsageRequest | messages.ReserveUsageRequest) -> None:
    """Raises PermissionDenied if Envoy's key may not call the method of LimitService with this message."""
    caller = current_call.get().caller
    assert caller is not None  # every call of the API has one
    check_role(caller, f"/{_LIMIT_SERVICE}/{method}")
    check_customer(caller, f"/{_LIMIT_SERVICE}/{method}", message)


def _not_permitted(error: PermissionDenied) -> str:
    """What is wrong with the key of Envoy, without its id: the clients of Envoy read it."""
    role = error.metadata.get("required_role")
    needs = f"needs the role {role}" if role else "may not ask about all customers"
    return f"the gateway is not configured correctly: its API key {needs}"


def _misconfigured(error: InvalidArgument) -> envoy.CheckResponse:
    described = "; ".join(f"{one.path}: {one.description}" for one in error.violations)
    message = f"the gateway is not configured correctly: {described}"
    return gateway_answers.refused(HTTPStatus.INTERNAL_SERVER_ERROR, error, message)


def _invalid(error: InvalidArgument, wanted: Wanted) -> envoy.CheckResponse:
    """The answer to fields that are wrong: in the request of the client, or in its route."""
    sources = [(*wanted.source_of(one.path), one.description) for one in error.violations]
    described = "; ".join(f"{source}: {description}" for source, _, description in sources)
    if sources and all(of_request for _, of_request, _ in sources):
        return gateway_answers.refused(HTTPStatus.BAD_REQUEST, error, described)
    message = f"the gateway is not configured correctly: {described or error.message}"
    return gateway_answers.refused(HTTPStatus.INTERNAL_SERVER_ERROR, error, message)
