"""Signatures of webhooks after the Standard Webhooks specification 1.0.0: symmetric `v1`, asymmetric `v1a`.

A receiver recomputes HMAC-SHA256 over `{webhook-id}.{webhook-timestamp}.{body}` with its endpoint's secret (v1), or
verifies an ed25519 signature over the same text with its endpoint's public key (v1a). Every attempt is signed anew
with its own time; the id and the body never change.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SECRET_PREFIX = "whsec_"
PRIVATE_KEY_PREFIX = "whsk_"
PUBLIC_KEY_PREFIX = "whpk_"
SEED_LENGTH = 32  # bytes of an ed25519 key; its public key may follow
MIN_KEY_LENGTH = 24  # bytes
MAX_KEY_LENGTH = 64  # bytes

ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"


class MalformedSecret(Exception):
    """A stored secret is neither `whsec_` and the base64 of 24 to 64 bytes nor `whsk_` and an ed25519 key."""

    # The message never holds any of the secret: it ends up in logs.


@lru_cache(maxsize=1024)
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


@lru_cache(maxsize=1024)  # to parse an ed25519 key costs as much as to sign with it
def private_key(secret: str) -> Ed25519PrivateKey:
    """The ed25519 key inside a secret's text form. Raises MalformedSecret."""
    if not secret.startswith(PRIVATE_KEY_PREFIX):
        raise MalformedSecret(f"a private key must begin with {PRIVATE_KEY_PREFIX}")
    try:
        key = base64.b64decode(secret[len(PRIVATE_KEY_PREFIX) :], validate=True)
    except (binascii.Error, ValueError):
        raise MalformedSecret(f"what follows {PRIVATE_KEY_PREFIX} in a private key must be base64") from None
    if len(key) not in (SEED_LENGTH, 2 * SEED_LENGTH):
        raise MalformedSecret(f"a private key must hold {SEED_LENGTH} or {2 * SEED_LENGTH} bytes, not {len(key)}")
    return Ed25519PrivateKey.from_private_bytes(key[:SEED_LENGTH])


def sign_asymmetric(key: Ed25519PrivateKey, message_id: str, timestamp: int, body: bytes) -> str:
    """One signature, `v1a,<base64>`; `timestamp` in whole seconds of Unix time."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1a," + base64.b64encode(key.sign(signed)).decode()


def signed_headers(secrets: Sequence[str], message_id: str, time: datetime, body: bytes) -> dict[str, str]:
    """The three headers of one attempt made at `time`; one signature for each secret, in the order given.

    The prefix of a secret says how it signs. Raises MalformedSecret; ValueError when there is no secret, since
    nothing is ever sent unsigned.
    """
    if not secrets:
        raise ValueError("an attempt needs at least one secret")
    timestamp = int(time.timestamp())
    signatures = (
        sign_asymmetric(private_key(secret), message_id, timestamp, body)
        if secret.startswith(PRIVATE_KEY_PREFIX)
        else sign(signing_key(secret), message_id, timestamp, body)
        for secret in secrets
    )
    return {
        ID_HEADER: message_id,
        TIMESTAMP_HEADER: str(timestamp),
        SIGNATURE_HEADER: " ".join(signatures),
    }
