"""Secrets at rest: sealed with AES-256-GCM under master keys that the database never sees."""

import base64
import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runtime.configuration import MAX_KEY_ID_BYTES, SECRET_KEY_BYTES

NONCE_BYTES = 12
KEY_FILE = "secret.key"  # in the data directory; made for the embedded database only
LOCAL_KEY_ID = "local"  # of the key in that file

_FORMAT = 1  # first byte of everything sealed


class CannotOpen(Exception):
    """Sealed data cannot be opened: its key is missing, it was changed, or it was copied from another row."""


class KeyFileUnusable(Exception):
    """The key file of the data directory does not hold a key."""


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
        for key_id, key in keys:
            encoded = key_id.encode()
            if not 1 <= len(encoded) <= MAX_KEY_ID_BYTES:
                raise ValueError(f"the id of a key has 1 to {MAX_KEY_ID_BYTES} bytes, not {len(encoded)}")
            if encoded in self._ciphers:
                raise ValueError(f"there are two keys with the id {key_id!r}")
            if len(key) != SECRET_KEY_BYTES:
                raise ValueError(f"the key {key_id!r} has {len(key)} bytes; AES-256 takes {SECRET_KEY_BYTES}")
            self._ciphers[encoded] = AESGCM(key)
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

    def is_current(self, sealed: bytes) -> bool:
        """Whether `sealed` is sealed with the key that seals now; otherwise it should be re-encrypted."""
        return _key_id(sealed) == self._sealing


def keys_of(keys: Sequence[tuple[str, bytes]], directory: Path | None) -> list[tuple[str, bytes]]:
    """The master keys of a process: the configured ones, or the local key in `directory` when none is configured.

    `directory` is the data directory of the embedded database; None for another database. When keys are configured
    later, the local key still opens what it sealed. Raises KeyFileUnusable.
    """
    with_local = directory is not None and (not keys or (directory / KEY_FILE).exists())
    local = [local_key(directory)] if directory is not None and with_local else []
    return [*keys, *(key for key in local if key[0] not in dict(keys))]


def box_of(keys: Sequence[tuple[str, bytes]], directory: Path | None) -> SecretBox | None:
    """The box with the keys of `keys_of`; None when there is no key, so that nothing can be sealed.

    Raises KeyFileUnusable.
    """
    found = keys_of(keys, directory)
    return SecretBox(found) if found else None


def secret_context(organization_id: int, endpoint_id: str, sequence: int) -> str:
    """The context of an endpoint's signing secret."""
    return f"endpoint_secret/{organization_id}/{endpoint_id}/{sequence}"


def credentials_context(organization_id: int, endpoint_id: str) -> str:
    """The context of the credentials that an endpoint's requests carry."""
    return f"endpoint/{organization_id}/{endpoint_id}/credentials"


def local_key(directory: Path) -> tuple[str, bytes]:
    """The key in the data directory. The first process that needs it makes it (mode 0600).

    Raises KeyFileUnusable.
    """
    path = directory / KEY_FILE
    if not path.exists():
        _make(path)
    try:
        key = base64.b64decode(path.read_text().strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != SECRET_KEY_BYTES:
        raise KeyFileUnusable(
            f"{path} does not hold the base64 of {SECRET_KEY_BYTES} bytes: restore it from a backup, or remove it and"
            " lose the secrets of every webhook endpoint"
        )
    return LOCAL_KEY_ID, key


def _make(path: Path) -> None:
    """Writes a new key, unless another process writes one first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(dir=path.parent, prefix=KEY_FILE)  # mode 0600
    try:
        with os.fdopen(number, "w") as file:
            file.write(base64.b64encode(secrets.token_bytes(SECRET_KEY_BYTES)).decode() + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A link appears whole or not at all, and replaces no file: of two processes that start together, the second
        # reads the key of the first.
        os.link(name, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(name)


def _key_id(sealed: bytes) -> bytes:
    if len(sealed) < 2 or sealed[0] != _FORMAT:
        raise CannotOpen("it was not sealed by this version of Tidemark")
    return sealed[2 : 2 + sealed[1]]
