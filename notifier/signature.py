"""Signatures of webhooks after the Standard Webhooks specification 1.0.0, symmetric scheme `v1`.

A receiver recomputes HMAC-SHA256 over `{webhook-id}.{webhook-timestamp}.{body}` with its endpoint's secret.
Every attempt is signed anew with its own time; the id and the body never change.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime

SECRET_PREFIX = "whsec_"
MIN_KEY_LENGTH = 24  # bytes
MAX_KEY_LENGTH = 64  # bytes

ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"


class MalformedSecret(Exception):
    """A stored secret is not `whsec_` followed by the base64 of 24 to 64 bytes."""

    # The message never holds any of the secret: it ends up in logs.


def signing_key(secret: str) -> bytes:
    """The key inside a secret's text form. Raises MalformedSecret."""
    if not secret.startswith(SECRET_PREFIX):
        raise MalformedSecret(f"a secret must begin with {SECRET_PREFIX}")
    try:
        key = base64.b64decode(secret[len(SECRET_PREFIX) :], validate=True)
    except (binascii.Error, ValueError):
        raise MalformedSecret(f"what follows {SECRET_PREFIX} in a secret must be base64") from None
    if not MIN_KEY_LENGTH <= len(key) <= MAX_KEY_LENGTH:
        raise MalformedSecret(
            f"a secret must hold {MIN_KEY_LENGTH} to {MAX_KEY_LENGTH} bytes; this one holds {len(key)}"
        )
    return key


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """One signature, `v1,<base64>`; `timestamp` in whole seconds of Unix time."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def signed_headers(secrets: Sequence[str], message_id: str, time: datetime, body: bytes) -> dict[str, str]:
    """The three headers of one attempt made at `time`; one signature for each secret, in the order given.

    Raises MalformedSecret; ValueError when there is no secret, since nothing is ever sent unsigned.
    """
    if not secrets:
        raise ValueError("an attempt needs at least one secret")
    timestamp = int(time.timestamp())
    signatures = (sign(signing_key(secret), message_id, timestamp, body) for secret in secrets)
    return {
        ID_HEADER: message_id,
        TIMESTAMP_HEADER: str(timestamp),
        SIGNATURE_HEADER: " ".join(signatures),
    }
