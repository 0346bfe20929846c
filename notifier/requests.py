"""What an attempt sends besides its body: signatures, credentials, and the endpoint's own headers."""

from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from store.deliveries.queue import Claim, StoredSecret, Target
from webhooks.headers import is_reserved
from webhooks.secret_box import CannotOpen, SecretBox, credentials_place, secret_place
from webhooks.signature import signed_headers

# Of every request. An endpoint's own Accept replaces this one.
HEADERS = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
    "User-Agent": "Tidemark-Webhooks/1",
}


@dataclass(slots=True, eq=False)
class RequestHeaders:
    """The headers of one attempt, and which of the endpoint's secrets signed it."""

    headers: dict[str, str] = field(repr=False)
    secret_sequences: tuple[int, ...]


def request_headers(claim: Claim, box: SecretBox | None, time: datetime, body: bytes) -> RequestHeaders:
    """The headers of an attempt made at `time`.

    Raises MalformedSecret, CannotOpen, and ValueError when there is no secret: nothing is ever sent unsigned.
    """
    constant = _constant(claim.target, box)
    signed = signed_headers(constant.secrets, claim.notification_id, time, body)
    return RequestHeaders(constant.headers | signed, constant.secret_sequences)


@dataclass(frozen=True)
class _Constant:
    """What all requests to an endpoint have in common."""

    headers: dict[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    secret_sequences: tuple[int, ...]


@lru_cache(maxsize=1024)  # the next attempt of the endpoint needs it again, unless the endpoint has changed
def _constant(target: Target, box: SecretBox | None) -> _Constant:
    own = {_named(name): value for name, value in target.headers if _may_be_set(name, value)}
    if target.credentials is not None:
        place = credentials_place(target.organization_id, target.endpoint_id)
        # The endpoint's own header of that name, however it is written, would be sent beside it.
        own = {name: value for name, value in own.items() if name.lower() != "authorization"}
        own["Authorization"] = _open(box, target.credentials, place)
    secrets = tuple(_opened(target, secret, box) for secret in target.secrets)
    return _Constant(HEADERS | own, secrets, tuple(secret.sequence for secret in target.secrets))


def _named(name: str) -> str:
    """The name of an endpoint's own header, written as ours is which it replaces."""
    return next((ours for ours in HEADERS if ours.lower() == name.lower()), name)


def _may_be_set(name: str, value: str) -> bool:
    # They are refused when the endpoint is saved; a row that was saved before one was reserved must not get through.
    return not is_reserved(name) and not any(character in name + value for character in "\r\n\0")


def _opened(target: Target, secret: StoredSecret, box: SecretBox | None) -> str:
    if secret.plain is not None:
        return secret.plain
    assert secret.sealed is not None
    return _open(box, secret.sealed, secret_place(target.organization_id, target.endpoint_id, secret.sequence))


def _open(box: SecretBox | None, sealed: bytes, place: str) -> str:
    if box is None:
        raise CannotOpen("this process has no master key: set TIDEMARK_SECRET_KEYS")
    return box.open(sealed, place).decode()
