"""The keys that webhooks are signed with, in their text forms.

`whsec_…` is a secret that signs and verifies (HMAC-SHA256), `whsk_…` a private ed25519 key, `whpk_…` its public key.
What follows the prefix is base64.
"""

import base64
import binascii
import secrets
from enum import StrEnum
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SECRET_PREFIX = "whsec_"
PRIVATE_KEY_PREFIX = "whsk_"
PUBLIC_KEY_PREFIX = "whpk_"
NEW_SECRET_BYTES = 32
MIN_SECRET_BYTES = 24
MAX_SECRET_BYTES = 64
SEED_BYTES = 32  # of an ed25519 private key; its public key may follow


class Scheme(StrEnum):
    """How a key signs, by the version that stands before its signatures."""

    HMAC_SHA256 = "v1"
    ED25519 = "v1a"


class MalformedKey(ValueError):
    """A key does not have the text form that it should have. The message holds none of the key."""


def new_signing_key(scheme: Scheme) -> str:
    """A new random key: "whsec_…" or "whsk_…"."""
    if scheme is Scheme.HMAC_SHA256:
        return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(NEW_SECRET_BYTES)).decode()
    seed = secrets.token_bytes(SEED_BYTES)
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return PRIVATE_KEY_PREFIX + base64.b64encode(seed + public).decode()


def scheme_of(key: str) -> Scheme:
    """How a key signs, by its prefix."""
    return Scheme.ED25519 if key.startswith(PRIVATE_KEY_PREFIX) else Scheme.HMAC_SHA256


def verification_key(key: str) -> str:
    """The key that a receiver verifies with: the secret itself, or the public key of a private key."""
    if not key.startswith(PRIVATE_KEY_PREFIX):
        return key
    pair = _bytes_of(key, PRIVATE_KEY_PREFIX)
    return PUBLIC_KEY_PREFIX + base64.b64encode(pair[SEED_BYTES:]).decode()


@lru_cache(maxsize=1024)
def signing_secret(key: str) -> bytes:
    """The bytes of a `whsec_` key that signs. Raises MalformedKey."""
    secret = _bytes_of(key, SECRET_PREFIX)
    if not MIN_SECRET_BYTES <= len(secret) <= MAX_SECRET_BYTES:
        raise MalformedKey(
            f"a secret must hold {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes; this one holds {len(secret)}"
        )
    return secret


@lru_cache(maxsize=1024)  # to parse an ed25519 key costs as much as to sign with it
def private_key(key: str) -> Ed25519PrivateKey:
    """The ed25519 key of a `whsk_` key. Raises MalformedKey."""
    data = _bytes_of(key, PRIVATE_KEY_PREFIX)
    if len(data) not in (SEED_BYTES, 2 * SEED_BYTES):
        raise MalformedKey(f"a private key must hold {SEED_BYTES} or {2 * SEED_BYTES} bytes, not {len(data)}")
    return Ed25519PrivateKey.from_private_bytes(data[:SEED_BYTES])


def _bytes_of(key: str, prefix: str) -> bytes:
    if not key.startswith(prefix):
        raise MalformedKey(f"the key must begin with {prefix}")
    try:
        return base64.b64decode(key.removeprefix(prefix), validate=True)
    except (binascii.Error, ValueError):
        raise MalformedKey(f"what follows {prefix} in a key must be base64") from None
