"""What a failed call means: what happened, where, what to do next, and the exit code of the command."""

import shlex
from typing import Any

import grpc

from cli.client.connection import Address
from cli.client.errors import FailedCall, cause_of, error_reason
from cli.console import Problem


class BadRequest(Problem):
    """The server refuses the request, whatever the state of the system."""

    exit_code = 2


class NotFound(Problem):
    """What the request names does not exist."""

    exit_code = 3


class Denied(Problem):
    """The key is missing, wrong, or may not do this."""

    exit_code = 4


class Unavailable(Problem):
    """No server answers, or not in time."""

    exit_code = 5


class Conflict(Problem):
    """The present state does not allow the request: it exists already, is in use, or was changed meanwhile."""

    exit_code = 6


class Exhausted(Problem):
    """A quota or a bound is reached."""

    exit_code = 7


_CLASSES: dict[grpc.StatusCode, type[Problem]] = {
    grpc.StatusCode.INVALID_ARGUMENT: BadRequest,
    grpc.StatusCode.OUT_OF_RANGE: BadRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.UNAUTHENTICATED: Denied,
    grpc.StatusCode.PERMISSION_DENIED: Denied,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: Unavailable,
    grpc.StatusCode.ALREADY_EXISTS: Conflict,
    grpc.StatusCode.FAILED_PRECONDITION: Conflict,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Exhausted,
}
# What to do about an error, by the subject of its reason: ERROR_REASON_ALERT_NOT_FOUND.
_LISTS = {
    "ALERT": "tidemark alerts list",
    "CUSTOMER": "tidemark customers list",
    "SUBSCRIPTION": "tidemark subscriptions list --customer CUSTOMER",
    "METRIC": "tidemark metrics list",
    "PLAN": "tidemark plans list",
    "LIMIT": "tidemark limits list",
    "INVOICE": "tidemark invoices list --customer CUSTOMER",
    "BALANCE": "tidemark balances list --customer CUSTOMER",
    "SEGMENT": "tidemark balances get CUSTOMER BALANCE",
    "ENDPOINT": "tidemark endpoints list",
    "DELIVERY": "tidemark deliveries list",
    "NOTIFICATION": "tidemark notifications list",
    "ERASURE_JOB": "tidemark erasures list",
    "REDELIVERY_JOB": "tidemark redelivery-jobs list",
    "AUDIT_ENTRY": "tidemark audit list",
    "RESERVATION": "tidemark reservations list CUSTOMER",
    "RECHARGE_POLICY": "tidemark recharge-policies list",
    "RECHARGE": "tidemark recharges list",
}
_HINTS = {
    "ERROR_REASON_ETAG_MISMATCH": ["it was changed meanwhile: read it again, and repeat the change"],
    "ERROR_REASON_UNIQUENESS_KEY_TAKEN": [
        "choose another --uniqueness-key, or change that alert",
        "an archived alert keeps its key until `tidemark alerts release-key ALERT`",
    ],
    "ERROR_REASON_ROLE_MISSING": [
        "use a key with that role; `tidemark keys list`, on the machine of the operator, shows the roles"
    ],
    "ERROR_REASON_IN_USE": ["remove what uses it first"],
    "ERROR_REASON_QUOTA_EXCEEDED": ["`tidemark quotas list` shows the quotas and what is used of them"],
    "ERROR_REASON_RESERVATION_ENDED": [
        "it holds nothing any more: see tidemark reservations get CUSTOMER RESERVATION"
    ],
}


def as_failed(error: grpc.RpcError) -> Any:
    """The error as a FailedCall, which every error of a call is."""
    return error


def problem_of(error: FailedCall, address: Address) -> Problem:
    """The Problem of a call that failed, with the exit code of its status."""
    problem = _problem(error, address)
    return _CLASSES.get(error.code(), Problem)(problem.message, problem.hints)


def message_of(error: FailedCall) -> str:
    """The message of a failed call, otherwise the name of its code."""
    return error.details() or str(error.code().name)


def _problem(error: FailedCall, address: Address) -> Problem:
    code, reason, message = error.code(), error_reason(error), message_of(error)
    if code is grpc.StatusCode.UNAVAILABLE and not reason:
        return Problem(
            f"no server answers at {address.server}: {error.details() or 'no further details'}",
            [
                "start one with `tidemark up`, or name another with --server HOST:PORT or --context NAME",
                about_tls(address),
            ],
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Problem(
            f"{address.server} did not answer in time: {message}", ["try again; `tidemark doctor` searches the cause"]
        )
    if code is grpc.StatusCode.UNAUTHENTICATED:
        hint = (
            "pass an API key with --key, TIDEMARK_KEY, or `tidemark context set NAME --key KEY`"
            if address.key is None
            else "the key may be revoked, expired, or of another server: check --key, TIDEMARK_KEY and the context"
        )
        return Problem(f"{address.server} does not accept the credentials of this call: {message}", [hint])
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return Problem(f"the server at {address.server} does not know this method: {message}", ["upgrade the server"])
    if reason in _HINTS:
        return Problem(message, _HINTS[reason])
    subject = reason.removeprefix("ERROR_REASON_").removesuffix("_NOT_FOUND")
    if code is grpc.StatusCode.NOT_FOUND:
        listed = _LISTS.get(subject, "")
        if customer_id := cause_of(error).metadata.get("customer_id"):
            listed = listed.replace("CUSTOMER", shlex.quote(customer_id))
        return Problem(message, [f"see what there is: {listed}"] if listed else [])
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return _invalid(error, message)
    if code in _CLASSES:
        return Problem(message)
    return Problem(f"{address.server} answered {code.name}: {message}")


def _invalid(error: FailedCall, message: str) -> Problem:
    """The Problem of a request with bad fields: each of them, if there are several."""
    violations = [f"{one.field}: {one.description}" for one in cause_of(error).violations]
    if len(violations) > 1:
        return Problem(f"the request has {len(violations)} mistakes", violations)
    return Problem(message)


def about_tls(address: Address) -> str:
    """What to check where the server has TLS and the client none, or files that do not fit."""
    if address.tls is None:
        return "a server with TLS needs --server-ca FILE, or --tls"
    if address.tls.certificate is None:
        return (
            "check --server-ca; a server with TIDEMARK_TLS_CLIENT_CA needs --client-certificate and --client-key, too"
        )
    return "check --server-ca, --client-certificate and --client-key: PEM, and each of the authority that is expected"
