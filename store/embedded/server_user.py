"""The user that the server runs as. PostgreSQL refuses root, and Tidemark creates no user."""

import os
import pwd
from dataclasses import dataclass
from typing import Any

from store.embedded.errors import CannotStart
from store.embedded.layout import Layout

FOR_ROOT = ("postgres", "nobody")  # if root starts the server: the first of these users that exists


@dataclass(frozen=True)
class ServerUser:
    """A user of the machine. switch: whether child processes must change to it."""

    uid: int
    gid: int
    switch: bool

    @property
    def name(self) -> str | None:
        """The name of the user; None for a number without a name."""
        return _name(self.uid)

    @property
    def popen_options(self) -> dict[str, Any]:
        """Options of subprocess.Popen that start a process as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.switch else {}


def server_user(layout: Layout) -> ServerUser:
    """The present user. For root: the owner of the data; for new data the directory's owner, `postgres` or `nobody`.

    Raises CannotStart if the data belong to another user, or if no user is suitable.
    """
    owner = layout.data.stat() if layout.data.exists() else None
    if os.geteuid() != 0:
        if owner is not None and owner.st_uid != os.geteuid():
            raise CannotStart(
                f"{layout.data} belongs to {_name(owner.st_uid) or owner.st_uid}, and this process runs as"
                f" {_name(os.geteuid()) or os.geteuid()}: run as that user, or name another directory"
            )
        return ServerUser(os.geteuid(), os.getegid(), switch=False)
    directory = layout.directory.stat()
    for found in (owner, directory):
        if found is not None and found.st_uid != 0:
            return ServerUser(found.st_uid, found.st_gid, switch=True)
    for name in FOR_ROOT:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return ServerUser(entry.pw_uid, entry.pw_gid, switch=True)
    raise CannotStart(
        f"PostgreSQL does not run as root, and this machine has no user {' or '.join(FOR_ROOT)}:"
        " run as another user, or let the data directory belong to one"
    )


def _name(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None
