"""Secrets at rest: sealed with AES-256-GCM under master keys that the database never sees."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runtime.configuration import MAX_KEY_ID_BYTES, SECRET_KEY_BYTES

NONCE_BYTES = 12

_FORMAT = 1  # first byte of everything sealed


class CannotOpen(Exception):
    """Sealed data cannot be opened: its key is missing, it was changed, or it was copied from another row."""


class SecretBox:
    """Seals and opens secrets.

    `keys` are pairs of an id and 32 bytes. The first one seals; all of them open, so that a key can be replaced:
    put the new one in front, re-encrypt, then drop the old one.
    """

    def __init__(self, keys: Sequence[tuple[str, bytes]]) -> None:
        """Raises ValueError for no key, a key of another length, an id that is empty, too long or there twice."""
        if not keys:
            raise ValueError("at least one key is needed")
        self._ciphers: dict[bytes, AESGCM] = {}
        self._fingerprint_keys: list[bytes] = []
        for key_id, key in keys:
            encoded = key_id.encode()
            if not 1 <= len(encoded) <= MAX_KEY_ID_BYTES:
                raise ValueError(f"the id of a key has 1 to {MAX_KEY_ID_BYTES} bytes, not {len(encoded)}")
            if encoded in self._ciphers:
                raise ValueError(f"there are two keys with the id {key_id!r}")
            if len(key) != SECRET_KEY_BYTES:
                raise ValueError(f"the key {key_id!r} has {len(key)} bytes; AES-256 takes {SECRET_KEY_BYTES}")
            self._ciphers[encoded] = AESGCM(key)
            self._fingerprint_keys.append(hmac.digest(key, b"fingerprint", hashlib.sha256))
        self._sealing = keys[0][0].encode()

    @property
    def key_id(self) -> str:
        """The id of the key that seals."""
        return self._sealing.decode()

    def seal(self, plain: bytes, context: str) -> bytes:
        """Seals `plain` for `context`, which names the row and the column that it is stored in.

        Sealed data that is copied to another row or column cannot be opened there.
        """
        nonce = secrets.token_bytes(NONCE_BYTES)
        head = bytes((_FORMAT, len(self._sealing))) + self._sealing
        return head + nonce + self._ciphers[self._sealing].encrypt(nonce, plain, head + context.encode())

    def open(self, sealed: bytes, context: str) -> bytes:
        """Opens what was sealed for `context`. Raises CannotOpen."""
        key_id = _key_id(sealed)
        if (cipher := self._ciphers.get(key_id)) is None:
            raise CannotOpen(f"it was sealed with the key {key_id.decode(errors='replace')!r}, which is not given")
        end_of_head = 2 + len(key_id)
        end_of_nonce = end_of_head + NONCE_BYTES
        head, nonce = sealed[:end_of_head], sealed[end_of_head:end_of_nonce]
        try:
            return cipher.decrypt(nonce, sealed[end_of_nonce:], head + context.encode())
        except (InvalidTag, ValueError) as error:
            raise CannotOpen("it was changed, or it was sealed for another row or with another key") from error

    def fingerprints(self, plain: bytes) -> list[bytes]:
        """Digests of `plain`, one under each key, that of the key that seals first.

        Equal data has equal digests. Without the key it cannot be guessed from its digest, however short it is.
        """
        return [hmac.digest(key, plain, hashlib.sha256) for key in self._fingerprint_keys]

    def is_current(self, sealed: bytes) -> bool:
        """Whether `sealed` is sealed with the key that seals now; otherwise it should be re-encrypted."""
        return _key_id(sealed) == self._sealing


def box_of(keys: Sequence[tuple[str, bytes]]) -> SecretBox | None:
    """The box with these keys; None when there is none, so that nothing can be sealed."""
    return SecretBox(keys) if keys else None


def secret_context(organization_id: int, endpoint_id: str, sequence: int) -> str:
    """The context of an endpoint's signing secret."""
    return f"endpoint_secret/{organization_id}/{endpoint_id}/{sequence}"


def credentials_context(organization_id: int, endpoint_id: str) -> str:
    """The context of the credentials that an endpoint's requests carry."""
    return f"endpoint/{organization_id}/{endpoint_id}/credentials"


def _key_id(sealed: bytes) -> bytes:
    if len(sealed) < 2 or sealed[0] != _FORMAT:
        raise CannotOpen("it was not sealed by this version of Tidemark")
    return sealed[2 : 2 + sealed[1]]
