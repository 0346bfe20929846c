"""The data directory of PostgreSQL: created once; its settings and access rules are written at each start."""

import os
import shutil
import subprocess
from pathlib import Path

from store.embedded.errors import CannotStart
from store.embedded.layout import PRIVATE, Layout
from store.embedded.server_user import ServerUser
from store.embedded.settings import machine_of, settings_for

SUPERUSER = "postgres"  # of the database; not a user of the machine

_SETTINGS_FILE = "tidemark.conf"
_MAP = "tidemark"
_HBA = f"""# Written by Tidemark at every start.
# The server listens on a unix socket only. The kernel names the user at its other end; {_MAP} in pg_ident.conf lists
# those that may log in. There is no password, and no other way in.
local all all peer map={_MAP}
"""


def working_path(layout: Layout, user: ServerUser) -> str:
    """The path by which the server opens its data directory, which is its current folder.

    If root starts the server, the server's user may have no access to a folder above the directory. The kernel's link
    to the current folder needs no such access, so that no mode of a folder has to change.
    """
    return "/proc/self/cwd" if user.switch and Path("/proc/self/cwd").exists() else str(layout.data)


def ensure(layout: Layout, user: ServerUser, installation: Path) -> None:
    """Creates the data directory if it does not exist, and writes settings and access rules. Raises CannotStart."""
    if layout.data.exists() and not (layout.data / "PG_VERSION").exists():
        try:
            layout.data.rmdir()
        except OSError:
            raise CannotStart(
                f"{layout.data} contains files, but is no data directory of PostgreSQL; move it away"
            ) from None
    if not layout.data.exists():
        _make(layout, user, installation)
    _write_settings(layout.data, user)


def environment() -> dict[str, str]:
    """The environment of PostgreSQL's programs, without variables of this process that would change what they do."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def _make(layout: Layout, user: ServerUser, installation: Path) -> None:
    # It has another name until it is complete: after a kill during initdb, the next start begins again.
    unfinished = layout.unfinished_data
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(mode=PRIVATE)
    if user.switch:
        os.chown(unfinished, user.uid, user.gid)
    elif user.name is None:
        raise CannotStart(f"PostgreSQL needs a name for the user {user.uid}: it has no entry in /etc/passwd")
    made = subprocess.run(
        [
            installation / "bin" / "initdb",
            "--pgdata",
            "/proc/self/cwd" if user.switch else str(unfinished),
            "--username",
            SUPERUSER,
            "--auth=peer",
            "--encoding=UTF8",
            "--locale=C",
            "--no-instructions",
        ],
        cwd=unfinished,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        **user.popen_options,
    )
    if made.returncode != 0:
        shutil.rmtree(unfinished, ignore_errors=True)
        lines = made.stderr.strip().splitlines() or [f"initdb ended with exit code {made.returncode}"]
        raise CannotStart(f"PostgreSQL's data directory cannot be made: {'; '.join(lines[:3])}")
    _write_settings(unfinished, user)
    unfinished.rename(layout.data)


def _write_settings(data: Path, user: ServerUser) -> None:
    (data / "socket").mkdir(mode=PRIVATE, exist_ok=True)
    os.chmod(data / "socket", PRIVATE)
    if user.switch:
        os.chown(data / "socket", user.uid, user.gid)
    settings = settings_for(machine_of(data))
    _write(data / _SETTINGS_FILE, "".join(f"{name} = '{value}'\n" for name, value in settings.items()), user)
    main = data / "postgresql.conf"
    include = f"include_if_exists = '{_SETTINGS_FILE}'\n"
    written = main.read_text()
    if include not in written:
        _write(main, written + include, user)
    _write(data / "pg_hba.conf", _HBA, user)
    names = [name for name in ("root", user.name) if name is not None]
    _write(data / "pg_ident.conf", "".join(f'{_MAP} "{name}" {SUPERUSER}\n' for name in dict.fromkeys(names)), user)


def _write(path: Path, text: str, user: ServerUser) -> None:
    """Replaces a file of the data directory as a whole: on a full disk, the old file remains."""
    if path.exists() and not path.is_symlink() and path.read_text() == text:
        return
    new = path.with_name(f"{path.name}.tidemark")
    new.unlink(missing_ok=True)
    number = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(number, "w") as file:
        if user.switch:
            os.fchown(number, user.uid, user.gid)
        file.write(text)
    new.replace(path)
