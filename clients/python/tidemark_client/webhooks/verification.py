"""`WebhookVerifier`: checks the signature and the time of a request, after Standard Webhooks 1.0.0."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import importlib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from tidemark_client.tasks.clock import now
from tidemark_client.webhooks.event import WebhookEvent

TOLERANCE = timedelta(minutes=5)
SECRET_PREFIX = "whsec_"
PUBLIC_KEY_PREFIX = "whpk_"

_ID, _TIMESTAMP, _SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
_PUBLIC_KEY_BYTES = 32


class WebhookNotVerified(Exception):
    """The request is not from Tidemark, was changed, or is too old; the message says which check failed."""


class WebhookVerifier:
    """Verifies requests with any of several keys: more than one while a secret is rotated.

    keys: `whsec_…` of endpoints with the scheme v1, `whpk_…` of those with v1a; these need the package
    `cryptography`. tolerance: how far the time of a request may be from now.
    """

    def __init__(self, keys: str | Iterable[str], *, tolerance: timedelta = TOLERANCE) -> None:
        """Raises ValueError for a key that is none; the message has nothing of it."""
        self._tolerance = tolerance
        self._secrets: list[bytes] = []
        self._public_keys: list[Callable[[bytes, bytes], bool]] = []
        for key in [keys] if isinstance(keys, str) else keys:
            self.trust(key)
        if not self._secrets and not self._public_keys:
            raise ValueError("a verifier needs at least one key")

    def verify(self, headers: Mapping[str, str], body: bytes, time: datetime | None = None) -> WebhookEvent:
        """What the request reports. headers: with names in any case. body: the bytes that arrived. time: unset, now.

        Raises WebhookNotVerified.
        """
        self.check(headers, body, time)
        message_id = next(value for name, value in headers.items() if name.lower() == _ID)
        try:
            return WebhookEvent.parse(message_id, body)
        except ValueError as error:
            raise WebhookNotVerified(f"the body is no event: {error}") from None

    def check(self, headers: Mapping[str, str], body: bytes, time: datetime | None = None) -> str:
        """The scheme of the signature that fits, `v1` or `v1a`. The arguments are those of `verify`.

        It does not read the body, so it also verifies what a later version may send. Raises WebhookNotVerified.
        """
        found = {name.lower(): value for name, value in headers.items()}
        message_id, timestamp, signatures = (found.get(name, "") for name in (_ID, _TIMESTAMP, _SIGNATURE))
        if not (message_id and timestamp and signatures):
            raise WebhookNotVerified(f"a header is missing: {_ID}, {_TIMESTAMP} and {_SIGNATURE} are needed")
        if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
            raise WebhookNotVerified(f"{_TIMESTAMP} is no number of seconds")
        away = abs(int(timestamp) - (time or now()).timestamp())
        if away > self._tolerance.total_seconds():
            raise WebhookNotVerified(f"{_TIMESTAMP} is {away:.0f} seconds away from now")
        signed = f"{message_id}.{timestamp}.".encode() + body
        for signature in signatures.split(" "):
            if self._fits(signature, signed):
                return signature.partition(",")[0]
        raise WebhookNotVerified("no signature fits: the secret is another one, or the body was changed")

    def trust(self, key: str) -> None:
        """Accepts signatures of this key, too. Raises ValueError, as the constructor does."""
        if key.startswith(SECRET_PREFIX):
            secret = _decoded(key, SECRET_PREFIX)
            if not secret:
                raise ValueError(f"nothing follows {SECRET_PREFIX}")
            self._secrets.append(secret)
        elif key.startswith(PUBLIC_KEY_PREFIX):
            self._public_keys.append(_ed25519(_decoded(key, PUBLIC_KEY_PREFIX)))
        else:
            raise ValueError(f"a key to verify with begins with {SECRET_PREFIX} or {PUBLIC_KEY_PREFIX}")

    def _fits(self, signature: str, signed: bytes) -> bool:
        scheme, _, encoded = signature.partition(",")
        try:
            given = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            return False
        if scheme == "v1":
            expected = [hmac.digest(secret, signed, hashlib.sha256) for secret in self._secrets]
            return any(hmac.compare_digest(given, one) for one in expected)
        return scheme == "v1a" and any(fits(given, signed) for fits in self._public_keys)


def _decoded(key: str, prefix: str) -> bytes:
    try:
        return base64.b64decode(key[len(prefix) :], validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"what follows {prefix} is not base64") from None


def _ed25519(data: bytes) -> Callable[[bytes, bytes], bool]:
    """Whether a signature fits a text, by a public key."""
    if len(data) != _PUBLIC_KEY_BYTES:
        raise ValueError(f"a public key has {_PUBLIC_KEY_BYTES} bytes, not {len(data)}")
    try:
        ed25519: Any = importlib.import_module("cryptography.hazmat.primitives.asymmetric.ed25519")
        exceptions: Any = importlib.import_module("cryptography.exceptions")
    except ImportError:
        raise ValueError(f"keys with {PUBLIC_KEY_PREFIX} need the package cryptography: install it") from None
    key = ed25519.Ed25519PublicKey.from_public_bytes(data)

    def fits(signature: bytes, signed: bytes) -> bool:
        try:
            key.verify(signature, signed)
        except exceptions.InvalidSignature:
            return False
        return True

    return fits
