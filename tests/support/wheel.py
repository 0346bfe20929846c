"""The wheels of this repository, and virtual environments that hold them with what they declare.

All of it is made without a network.

An environment gets third-party packages as links to the files of the running environment: only those packages that
the metadata of the wheel requires. A dependency that the wheel uses and does not declare is missing there.
"""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PathDistribution, distribution
from importlib.util import cache_from_source
from pathlib import Path, PurePath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 120.0  # seconds
CLIENT = "tidemark-client"  # the other package of this repository

# The compiled modules need not be fast, but soon there.
_ENVIRONMENT = {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "CFLAGS": "-O0"}

# Folders that tools leave in the repository: an old build/ would get into the wheel.
_LEFTOVERS = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "node_modules", "*.egg-info", "*.so", "*.c")


def build(folder: Path) -> Path:
    """Builds the source archives, and from them the wheels, in an empty folder. Returns the wheel of the service."""
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=_LEFTOVERS)
    build_client(folder)
    _run("build", "--no-isolation", "--outdir", str(folder / "dist"), str(source))
    (wheel,) = (folder / "dist").glob("tidemark-*.whl")
    return wheel


def build_client(folder: Path) -> Path:
    """Builds the source archive of the client, and from it the wheel."""
    source = folder / "client"
    shutil.copytree(ROOT / "clients" / "python", source, ignore=_LEFTOVERS)
    _run("build", "--no-isolation", "--outdir", str(folder / "dist"), str(source))
    (wheel,) = (folder / "dist").glob("tidemark_client-*.whl")
    return wheel


class Environment:
    """A virtual environment with a wheel, its dependencies and those of the extras.

    The wheel of the client is taken from the folder of the wheel.
    """

    def __init__(self, folder: Path, wheel: Path, *extras: str) -> None:
        venv.create(folder, symlinks=True)
        self._programs = folder / "bin"
        (site_packages,) = folder.glob("lib/python*/site-packages")
        wheels = {wheel, *wheel.parent.glob("tidemark_client-*.whl")}
        for found in required(wheel, extras):
            if canonicalize_name(found.name) != CLIENT:
                _link(found, site_packages)
        _run(
            *("pip", "--python", str(self._programs / "python"), "install", "--no-deps", "--no-index"),
            *map(str, sorted(wheels)),
        )

    @property
    def tidemark(self) -> tuple[str, ...]:
        """The command of the installed program."""
        return (str(self._programs / "tidemark"),)

    @property
    def python(self) -> tuple[str, ...]:
        """The command of the interpreter, without the current folder in its path."""
        return (str(self._programs / "python"), "-P")


def required(wheel: Path, extras: Iterable[str]) -> list[Distribution]:
    """The installed distributions that the wheel requires with those extras, directly and indirectly."""
    distributions: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [*_requirements(_metadata(wheel), ["", *extras])]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        found = distributions.setdefault(name, distribution(name))
        extras_of_it = [extra for extra in ("", *requirement.extras) if (name, extra) not in seen]
        seen.update((name, extra) for extra in extras_of_it)
        waiting += _requirements(found, extras_of_it)
    return list(distributions.values())


def _metadata(wheel: Path) -> Distribution:
    archive = zipfile.Path(wheel)
    (folder,) = (path for path in archive.iterdir() if path.name.endswith(".dist-info"))
    return PathDistribution(folder)


def _requirements(found: Distribution, extras: Iterable[str]) -> Iterator[Requirement]:
    """The requirements of a distribution on this machine; the extra "" stands for no extra."""
    for requirement in map(Requirement, found.requires or ()):
        if any(requirement.marker is None or requirement.marker.evaluate({"extra": extra}) for extra in extras):
            yield requirement


def _link(found: Distribution, site_packages: Path) -> None:
    files = [file for file in found.files or () if ".." not in file.parts]  # others are programs beside the packages
    for file in {*files, *map(_bytecode, files)}:
        source, target = Path(str(found.locate_file(file))), site_packages / file
        if not source.exists():  # bytecode that was not written
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:  # another file system
            shutil.copy2(source, target)


def _bytecode(file: PurePath) -> PurePath:
    """Where the bytecode of a module is, which is listed or not; for any other file, the file itself."""
    return PurePath(cache_from_source(str(file))) if file.suffix == ".py" else file


def _run(module: str, *arguments: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, **_ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
