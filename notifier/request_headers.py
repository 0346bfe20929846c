"""The headers of an attempt: signatures, credentials, and the endpoint's own headers."""

from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from runtime.tracing.context import TRACEPARENT, TRACESTATE, TraceContext
from store.deliveries.claims import Claim, ClaimedEndpoint, StoredSecret
from webhooks.headers import is_reserved
from webhooks.secret_box import CannotOpen, SecretBox, credentials_context, secret_context
from webhooks.signature import signed_headers

# Of every request. An endpoint's own Accept replaces this one.
HEADERS = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
    "User-Agent": "Tidemark-Webhooks/1",
}


_OF_TRACE = (TRACEPARENT, TRACESTATE)


@dataclass(slots=True, eq=False)
class RequestHeaders:
    """The headers of one attempt, and which of the endpoint's secrets signed it."""

    headers: dict[str, str] = field(repr=False)
    secret_sequences: tuple[int, ...]


def request_headers(
    claim: Claim, box: SecretBox | None, time: datetime, body: bytes, trace: TraceContext | None = None
) -> RequestHeaders:
    """The headers of an attempt made at `time`. trace: replaces the endpoint's own headers of these names.

    Raises MalformedKey, CannotOpen, and ValueError when there is no secret: nothing is ever sent unsigned.
    """
    constant = _constant(claim.endpoint, box)
    signed = signed_headers(constant.secrets, claim.notification_id, time, body)
    headers = constant.headers | signed
    if trace is not None:
        headers = {name: value for name, value in headers.items() if name.lower() not in _OF_TRACE} | trace.headers()
    return RequestHeaders(headers, constant.secret_sequences)


@dataclass(frozen=True)
class _Constant:
    """The headers and secrets that all requests to an endpoint have in common."""

    headers: dict[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    secret_sequences: tuple[int, ...]


@lru_cache(maxsize=1024)  # the next attempt needs it again, unless the endpoint has changed
def _constant(endpoint: ClaimedEndpoint, box: SecretBox | None) -> _Constant:
    own = {_named(name): value for name, value in endpoint.headers if _may_be_set(name, value)}
    if endpoint.credentials is not None:
        context = credentials_context(endpoint.organization_id, endpoint.endpoint_id)
        # The endpoint's own header of that name, in any case of letters, would be sent beside it.
        own = {name: value for name, value in own.items() if name.lower() != "authorization"}
        own["Authorization"] = _open(box, endpoint.credentials, context)
    secrets = tuple(_opened(endpoint, secret, box) for secret in endpoint.secrets)
    return _Constant(HEADERS | own, secrets, tuple(secret.sequence for secret in endpoint.secrets))


def _named(name: str) -> str:
    """The name of an endpoint's own header, written like the header of HEADERS that it replaces."""
    return next((ours for ours in HEADERS if ours.lower() == name.lower()), name)


def _may_be_set(name: str, value: str) -> bool:
    # Saving an endpoint refuses these headers. A row that was saved before a name was reserved may still have one.
    return not is_reserved(name) and not any(character in name + value for character in "\r\n\0")


def _opened(endpoint: ClaimedEndpoint, secret: StoredSecret, box: SecretBox | None) -> str:
    if secret.plain is not None:
        return secret.plain
    assert secret.sealed is not None
    return _open(box, secret.sealed, secret_context(endpoint.organization_id, endpoint.endpoint_id, secret.sequence))


def _open(box: SecretBox | None, sealed: bytes, context: str) -> str:
    if box is None:
        raise CannotOpen("this process has no master key: set TIDEMARK_SECRET_KEYS")
    return box.open(sealed, context).decode()
