"""What a receiver checks: that a signature fits the bytes, and that the time is near. Standard Webhooks 1.0.0."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from webhooks.signature import ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, signed_content
from webhooks.signing_keys import (
    PUBLIC_KEY_PREFIX,
    SECRET_PREFIX,
    MalformedKey,
    Scheme,
    public_key,
    verifying_secret,
)

TOLERANCE = timedelta(minutes=5)


class NotVerified(Exception):
    """The request is not from Tidemark, was changed, or is too old; the message says which check failed."""


class Verifier:
    """Verifies requests with any of several keys: `whsec_…` secrets and `whpk_…` public keys."""

    def __init__(self, keys: Sequence[str]) -> None:
        """Raises MalformedKey."""
        self._secrets: list[bytes] = []
        self._public_keys: list[Ed25519PublicKey] = []
        for key in keys:
            self.trust(key)

    def trust(self, key: str) -> None:
        """Accepts signatures of this key, too. Raises MalformedKey."""
        if key.startswith(SECRET_PREFIX):
            self._secrets.append(verifying_secret(key))
        elif key.startswith(PUBLIC_KEY_PREFIX):
            self._public_keys.append(public_key(key))
        else:
            raise MalformedKey(f"a key to verify with begins with {SECRET_PREFIX} or {PUBLIC_KEY_PREFIX}")

    def verify(self, headers: Mapping[str, str], body: bytes, now: datetime) -> str:
        """The scheme of the signature that fits, `v1` or `v1a`. `headers` have names in lower case.

        Raises NotVerified.
        """
        message_id, timestamp, signatures = (
            headers.get(name, "") for name in (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER)
        )
        if not (message_id and timestamp and signatures):
            raise NotVerified(
                f"a header is missing: {ID_HEADER}, {TIMESTAMP_HEADER} and {SIGNATURE_HEADER} are needed"
            )
        if not (timestamp.isascii() and timestamp.isdigit()):
            raise NotVerified(f"{TIMESTAMP_HEADER} is no number of seconds")
        if abs(int(timestamp) - now.timestamp()) > TOLERANCE.total_seconds():
            raise NotVerified(f"{TIMESTAMP_HEADER} is more than {TOLERANCE.seconds // 60} minutes away from now")
        signed = signed_content(message_id, timestamp, body)
        for scheme, _, encoded in (signature.partition(",") for signature in signatures.split(" ")):
            try:
                signature = base64.b64decode(encoded, validate=True)
            except (binascii.Error, ValueError):
                continue
            if self._fits(scheme, signature, signed):
                return scheme
        raise NotVerified("no signature fits: the secret is another one, or the body was changed")

    def _fits(self, scheme: str, signature: bytes, signed: bytes) -> bool:
        if scheme == Scheme.HMAC_SHA256:
            expected = (hmac.digest(secret, signed, hashlib.sha256) for secret in self._secrets)
            return any(hmac.compare_digest(signature, one) for one in expected)
        if scheme == Scheme.ED25519:
            return any(_verifies(key, signature, signed) for key in self._public_keys)
        return False


def _verifies(key: Ed25519PublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True
