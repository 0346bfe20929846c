"""Signatures of webhooks after the Standard Webhooks specification 1.0.0: symmetric `v1`, asymmetric `v1a`.

A receiver recomputes HMAC-SHA256 over `{webhook-id}.{webhook-timestamp}.{body}` with its endpoint's secret (v1), or
verifies an ed25519 signature over the same text with its endpoint's public key (v1a). Each attempt is signed with its
own time; the id and the body never change.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from webhooks.signing_keys import PRIVATE_KEY_PREFIX, Scheme, private_key, signing_secret

ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"


def signed_content(message_id: str, timestamp: int | str, body: bytes) -> bytes:
    """The bytes that a signature covers; `timestamp` in whole seconds of Unix time."""
    return f"{message_id}.{timestamp}.".encode() + body


def sign(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """One signature, `v1,<base64>`; `timestamp` in whole seconds of Unix time."""
    digest = hmac.digest(secret, signed_content(message_id, timestamp, body), hashlib.sha256)
    return f"{Scheme.HMAC_SHA256},{base64.b64encode(digest).decode()}"


def sign_asymmetric(key: Ed25519PrivateKey, message_id: str, timestamp: int, body: bytes) -> str:
    """One signature, `v1a,<base64>`; `timestamp` in whole seconds of Unix time."""
    signature = key.sign(signed_content(message_id, timestamp, body))
    return f"{Scheme.ED25519},{base64.b64encode(signature).decode()}"


def signed_headers(keys: Sequence[str], message_id: str, time: datetime, body: bytes) -> dict[str, str]:
    """The three headers of one attempt made at `time`, with one signature for each of `keys`, in their order.

    The prefix of a key says how it signs. Raises MalformedKey; ValueError when there is no key, since nothing is ever
    sent unsigned.
    """
    if not keys:
        raise ValueError("an attempt needs at least one secret")
    timestamp = int(time.timestamp())
    signatures = (
        sign_asymmetric(private_key(key), message_id, timestamp, body)
        if key.startswith(PRIVATE_KEY_PREFIX)
        else sign(signing_secret(key), message_id, timestamp, body)
        for key in keys
    )
    return {
        ID_HEADER: message_id,
        TIMESTAMP_HEADER: str(timestamp),
        SIGNATURE_HEADER: " ".join(signatures),
    }
