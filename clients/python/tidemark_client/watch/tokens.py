"""Where a watcher keeps its position, so that it goes on there after a restart."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Protocol


class TokenStore(Protocol):
    """Keeps one resume token. The watcher calls it in a thread, so it may block: on a database, for example."""

    def load(self) -> str:
        """The token that was saved last; empty if there is none."""

    def save(self, token: str) -> None:
        """Keeps the token instead of the one before. When it returns, the token must survive a crash."""


class MemoryTokens:
    """Keeps the token as long as the process lives. token: where to begin."""

    def __init__(self, token: str = "") -> None:
        self.token = token

    def load(self) -> str:
        """The token that was saved last; empty if there is none."""
        return self.token

    def save(self, token: str) -> None:
        """Keeps the token instead of the one before."""
        self.token = token


class FileTokens:
    """Keeps the token in a file, which is replaced as a whole and is on the disk when `save` returns."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    def load(self) -> str:
        """The token that was saved last; empty if there is none. Raises OSError, UnicodeDecodeError."""
        try:
            return self._path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return ""

    def save(self, token: str) -> None:
        """Keeps the token instead of the one before. Raises OSError."""
        descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(token)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self._path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
