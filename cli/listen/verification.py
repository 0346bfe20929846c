"""What a receiver checks: that the signature fits the bytes and the time is near. Standard Webhooks 1.0.0."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from webhooks.signature import PUBLIC_KEY_PREFIX, SECRET_PREFIX

TOLERANCE = timedelta(minutes=5)
PUBLIC_KEY_BYTES = 32


class NotVerified(Exception):
    """The request is not from Tidemark, was changed, or is too old; the message says which check failed."""


class MalformedKey(ValueError):
    """What was given to verify with is neither a secret nor a public key. The message holds none of it."""


class Verifier:
    """Verifies requests with any of several keys: `whsec_…` secrets and `whpk_…` public keys."""

    def __init__(self, keys: Sequence[str]) -> None:
        """Raises MalformedKey."""
        self._secrets: list[bytes] = []
        self._public_keys: list[Ed25519PublicKey] = []
        for key in keys:
            self.trust(key)

    def trust(self, key: str) -> None:
        """Believes what is signed with this key, too. Raises MalformedKey."""
        prefix = next((prefix for prefix in (SECRET_PREFIX, PUBLIC_KEY_PREFIX) if key.startswith(prefix)), None)
        if prefix is None:
            raise MalformedKey(f"a key to verify with begins with {SECRET_PREFIX} or {PUBLIC_KEY_PREFIX}")
        try:
            data = base64.b64decode(key.removeprefix(prefix), validate=True)
        except (binascii.Error, ValueError):
            raise MalformedKey(f"what follows {prefix} has to be base64") from None
        if prefix == SECRET_PREFIX:
            if not data:
                raise MalformedKey(f"nothing follows {prefix}")
            self._secrets.append(data)
        elif len(data) != PUBLIC_KEY_BYTES:
            raise MalformedKey(f"{prefix} holds {len(data)} bytes; a public key has {PUBLIC_KEY_BYTES}")
        else:
            self._public_keys.append(Ed25519PublicKey.from_public_bytes(data))

    def verify(self, headers: Mapping[str, str], body: bytes, now: datetime) -> str:
        """The scheme of the signature that fits, `v1` or `v1a`. Raises NotVerified."""
        message_id, timestamp, signatures = (
            headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")
        )
        if not (message_id and timestamp and signatures):
            raise NotVerified("a header is missing: webhook-id, webhook-timestamp and webhook-signature are needed")
        if not (timestamp.isascii() and timestamp.isdigit()):
            raise NotVerified("webhook-timestamp is no number of seconds")
        if abs(int(timestamp) - now.timestamp()) > TOLERANCE.total_seconds():
            raise NotVerified(f"webhook-timestamp is more than {TOLERANCE.seconds // 60} minutes away from now")
        signed = f"{message_id}.{timestamp}.".encode() + body
        for scheme, _, encoded in (signature.partition(",") for signature in signatures.split(" ")):
            try:
                signature = base64.b64decode(encoded, validate=True)
            except (binascii.Error, ValueError):
                continue
            if self._fits(scheme, signature, signed):
                return scheme
        raise NotVerified("no signature fits: another secret, or the body was changed on its way")

    def _fits(self, scheme: str, signature: bytes, signed: bytes) -> bool:
        if scheme == "v1":
            expected = (hmac.digest(secret, signed, hashlib.sha256) for secret in self._secrets)
            return any(hmac.compare_digest(signature, one) for one in expected)
        if scheme == "v1a":
            return any(_verifies(key, signature, signed) for key in self._public_keys)
        return False


def _verifies(key: Ed25519PublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True
