"""The folders and files of an embedded server, below its data directory."""

import os
from dataclasses import dataclass
from pathlib import Path

from store.embedded.errors import CannotStart

PRIVATE = 0o700
PORT = 5432  # only a part of the name of the socket; no port is opened
SOCKET_FOLDER = "socket"  # relative to PostgreSQL's data directory, which is the current folder of the server


@dataclass(frozen=True)
class Layout:
    """The paths of one embedded server. directory: absolute."""

    directory: Path

    @property
    def data(self) -> Path:
        """PostgreSQL's data directory."""
        return self.directory / "postgres"

    @property
    def unfinished_data(self) -> Path:
        """A data directory that initdb still writes; it is renamed when it is complete."""
        return self.directory / "postgres.new"

    @property
    def log(self) -> Path:
        """The file with the standard error output of PostgreSQL and its keeper."""
        return self.directory / "postgres.log"

    @property
    def locks(self) -> Path:
        """The folder of the lock files."""
        return self.directory / "locks"

    @property
    def pid_file(self) -> Path:
        """PostgreSQL's file about the running server."""
        return self.data / "postmaster.pid"

    @property
    def socket_folder(self) -> Path:
        """The folder of the unix socket, mode 0700."""
        return self.data / SOCKET_FOLDER

    def prepare(self) -> None:
        """Creates the data directory and the folder of the locks. Raises CannotStart without the rights for it."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self.locks.mkdir(mode=PRIVATE, exist_ok=True)
            self.give_to_owner(self.locks)
            for path in (self.directory, self.locks):
                if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
                    raise PermissionError(f"{path} belongs to another user")
        except PermissionError as error:
            raise CannotStart(
                f"this user may not use the data directory: {error}; run as its owner, or name another directory"
            ) from None

    def give_to_owner(self, file: Path | int) -> None:
        """Gives a file of root to the owner of the directory, so that the owner can use the server later."""
        if os.geteuid() == 0:
            owner = self.directory.stat()
            os.chown(file, owner.st_uid, owner.st_gid)

    def open_log(self) -> int:
        """A descriptor that appends to the log. A log of more than 16 MiB is renamed first."""
        if self.log.exists() and self.log.stat().st_size > 16 * 1024 * 1024:
            self.log.replace(self.log.with_suffix(".log.1"))
        # O_NOFOLLOW: with a link here, another user could make root write to any file.
        number = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        self.give_to_owner(number)
        return number

    def last_words(self, lines: int = 15) -> list[str]:
        """The end of the log."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 16_384))
                return file.read().decode(errors="replace").splitlines()[-lines:]
        except OSError:
            return []
