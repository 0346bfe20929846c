"""Compiled modules, which are optional: whether one is the result of the sources that lie beside it.

An installation from a wheel has no sources beside its modules. A checkout has them. There, a compiled module stays
when its source changes and when the new source cannot be compiled. It would make events of the version before.
"""

import hashlib
from pathlib import Path
from types import ModuleType

SOURCES = "native_*.p[xy][dx]"  # those of the compiled modules of a folder


def digest(folder: Path) -> str | None:
    """The digest of the sources of a folder, which `setup.py` writes into its modules; None: there are no sources."""
    sources = sorted(folder.glob(SOURCES))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest() if sources else None


def problem_of(module: ModuleType) -> str | None:
    """Why a compiled module that was imported must not be used; None: it is good."""
    expected = digest(Path(str(module.__file__)).parent)
    if expected is None or getattr(module, "SOURCES_DIGEST", None) == expected:
        return None
    return (
        f"{module.__file__} was compiled from other sources than those beside it:"
        " `python setup.py build_ext --inplace --force` compiles it again"
    )


def problem_of_import(error: ImportError, package: str) -> str | None:
    """Why a compiled module of a package exists and cannot be imported; None: there is none, the package lacks it."""
    return None if error.name == package else f"a compiled module of {package} cannot be imported: {error}"
