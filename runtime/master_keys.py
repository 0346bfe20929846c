"""The master keys of a process, which encrypt secrets: the configured ones, and the local key in a file."""

import base64
import os
import secrets
import tempfile
from pathlib import Path

from runtime.configuration import SECRET_KEY_BYTES, Configuration

KEY_FILE = "secret.key"  # in the data directory; made for the embedded database only
LOCAL_KEY_ID = "local"  # of the key in that file


class KeyFileUnusable(Exception):
    """The key file of the data directory does not hold a key."""


def master_keys(configuration: Configuration) -> list[tuple[str, bytes]]:
    """The configured keys; or the local key, when none is configured and the database is the embedded one.

    When keys are configured later, the local key still opens what it sealed. Raises KeyFileUnusable.
    """
    configured = configuration.secret_keys
    if configuration.database_url is not None:
        return list(configured)
    directory = configuration.data_directory
    if configured and not (directory / KEY_FILE).exists():
        return list(configured)
    local = local_key(directory)
    return [*configured] if local[0] in dict(configured) else [*configured, local]


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
