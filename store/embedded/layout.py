"""The folders and files of an embedded server, below its data directory."""

import os
from dataclasses import dataclass
from pathlib import Path

from store.embedded.errors import CannotStart

PRIVATE = 0o700
PORT = 5432  # only a part of the socket's name; no port is opened
SOCKET_FOLDER = "socket"  # relative to PostgreSQL's data directory, where the server works


@dataclass(frozen=True)
class Layout:
    """Where the parts of one embedded server are. directory: absolute."""

    directory: Path

    @property
    def data(self) -> Path:
        """PostgreSQL's own data directory."""
        return self.directory / "postgres"

    @property
    def unfinished_data(self) -> Path:
        """A data directory that initdb still writes; it gets its name when it is whole."""
        return self.directory / "postgres.new"

    @property
    def log(self) -> Path:
        """What PostgreSQL writes to standard error, and what its keeper does."""
        return self.directory / "postgres.log"

    @property
    def locks(self) -> Path:
        """The folder of the lock files."""
        return self.directory / "locks"

    @property
    def pid_file(self) -> Path:
        """PostgreSQL's own file about the server that runs."""
        return self.data / "postmaster.pid"

    @property
    def socket_folder(self) -> Path:
        """The folder of the unix socket, mode 0700."""
        return self.data / SOCKET_FOLDER

    def prepare(self) -> None:
        """Makes the data directory and the folder of the locks. Raises CannotStart without the right to."""
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
        """Lets a file that root made belong to the owner of the directory, who may use the server later."""
        if os.geteuid() == 0:
            owner = self.directory.stat()
            os.chown(file, owner.st_uid, owner.st_gid)

    def open_log(self) -> int:
        """A descriptor that appends to the log. An old log of more than 16 MiB is put aside first."""
        if self.log.exists() and self.log.stat().st_size > 16 * 1024 * 1024:
            self.log.replace(self.log.with_suffix(".log.1"))
        # Without following links: root must not write to a place that another user chose.
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
