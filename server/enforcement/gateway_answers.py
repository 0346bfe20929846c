"""The answers to Envoy: what a decision, or a request that cannot be decided, becomes in HTTP."""

import json
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import grpc
from google.rpc import status_pb2

from generated.envoy.service.auth.v3 import external_authorization_pb2 as envoy
from generated.tidemark.v1 import decision_pb2
from generated.tidemark.v1.error_reason_pb2 import ErrorReason
from server.calls.errors import MAX_MESSAGE_BYTES, ApiError, shortened
from server.calls.validation import to_datetime

CUSTOMER_HEADER = "tidemark-customer-id"
RESERVATION_HEADER = "tidemark-reservation-id"
GRANTED_HEADER = "tidemark-granted-quantity"
EXPIRY_HEADER = "tidemark-expire-time"

# What Envoy forwards is what was decided, whatever the client sends.
_HEADERS = (CUSTOMER_HEADER, RESERVATION_HEADER, GRANTED_HEADER, EXPIRY_HEADER)


def allowed(headers: Mapping[str, str]) -> envoy.CheckResponse:
    """The request passes. headers: of `_HEADERS`, for the application behind Envoy."""
    answer = envoy.CheckResponse(status=status_pb2.Status(code=grpc.StatusCode.OK.value[0]))
    changed = answer.ok_response
    changed.headers.extend(_header(name, value) for name, value in headers.items())
    changed.headers_to_remove.extend(name for name in _HEADERS if name not in headers)
    return answer


def denied(decision: decision_pb2.Decision) -> envoy.CheckResponse:
    """The request does not fit: 429, with what refused it and when to try again."""
    error: dict[str, Any] = {
        "status": grpc.StatusCode.RESOURCE_EXHAUSTED.name,
        "reason": decision_pb2.DecisionReason.Name(decision.reason).removeprefix("DECISION_REASON_"),
    }
    if decision.HasField("limit") and decision.reason == decision_pb2.DECISION_REASON_LIMIT:
        limit = decision.limit
        # A key that is limited to one customer sees no amounts of a limit above it.
        shown = f"the limit {limit.limit_id} leaves {limit.remaining}" if limit.limit_id else "a limit leaves less"
        error["message"] = shown
        error["limit"] = _limit(limit)
    else:
        error["message"] = f"the credit that is left is {decision.balance.remaining or 'less'}"
        error["balance"] = {**_unit(decision.balance), "remaining": decision.balance.remaining}
    headers = {}
    if decision.HasField("retry_after"):
        wait = decision.retry_after.seconds + decision.retry_after.nanos / 1e9
        headers["retry-after"] = str(max(1, math.ceil(wait)))
    status = status_pb2.Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message=error["message"])
    return _answered(HTTPStatus.TOO_MANY_REQUESTS, status, error, headers)


def refused(code: HTTPStatus, error: ApiError, message: str) -> envoy.CheckResponse:
    """The request cannot be decided, and would not be if it were sent again. message: what is wrong."""
    status = error.status()
    message = shortened(message, 4 * MAX_MESSAGE_BYTES)  # it may quote all headers of a request
    status.message = message
    reason = ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")
    return _answered(code, status, {"status": error.code.name, "reason": reason, "message": message}, {})


def _answered(
    code: HTTPStatus, status: status_pb2.Status, error: Mapping[str, Any], headers: Mapping[str, str]
) -> envoy.CheckResponse:
    answer = envoy.CheckResponse(status=status)
    response = answer.denied_response
    response.status.code = code
    response.headers.extend(
        _header(name, value) for name, value in {"content-type": "application/json", **headers}.items()
    )
    response.body = json.dumps({"error": error})
    return answer


def _header(name: str, value: str) -> envoy.HeaderValueOption:
    option = envoy.HeaderValueOption(header=envoy.HeaderValue(key=name, value=value))
    option.append.value = False
    return option


def _limit(limit: decision_pb2.LimitState) -> dict[str, str]:
    known = {
        "limit_id": limit.limit_id,
        "customer_id": limit.customer_id,
        **_unit(limit),
        "amount": limit.amount,
        "remaining": limit.remaining,
        "held": limit.held,
    }
    shown = {name: value for name, value in known.items() if value}
    if limit.HasField("reset_time"):
        shown["reset_time"] = to_datetime(limit.reset_time).isoformat()
    return shown


def _unit(state: decision_pb2.LimitState | decision_pb2.BalanceState) -> dict[str, str]:
    match state.WhichOneof("access"):
        case "spend":
            return {"currency": state.spend.currency}
        case "quantity":
            return {"metric_id": state.quantity.metric_id}
    return {}
