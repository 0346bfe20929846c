"""Compiled modules are used only if they can be imported and are the result of the sources beside them."""

import importlib
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

from runtime.compiled import digest, problem_of, problem_of_import


def compiled(folder: Path, sources_digest: str | None) -> ModuleType:
    """A module of that folder, compiled from sources with that digest."""
    module = ModuleType("native_thing")
    module.__file__ = str(folder / "native_thing.so")
    if sources_digest is not None:
        module.SOURCES_DIGEST = sources_digest  # type: ignore[attr-defined]
    return module


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the sources of a compiled module."""
    (tmp_path / "native_thing.pyx").write_text("one")
    (tmp_path / "native_part.pxd").write_text("two")
    return tmp_path


def test_module_is_good_beside_the_sources_that_it_was_compiled_from(checkout: Path) -> None:
    assert problem_of(compiled(checkout, digest(checkout))) is None


def test_module_is_good_where_it_has_no_sources_beside_it(tmp_path: Path) -> None:
    (tmp_path / "native_thing.pyi").write_text("the types are no source")
    assert digest(tmp_path) is None
    assert problem_of(compiled(tmp_path, "of the wheel")) is None


@pytest.mark.parametrize("source", ["native_thing.pyx", "native_part.pxd", "native_new.pxd"])
def test_module_is_refused_after_a_source_changed(checkout: Path, source: str) -> None:
    module = compiled(checkout, digest(checkout))
    (checkout / source).write_text("three")
    assert "other sources" in (problem_of(module) or "")


def test_module_without_a_digest_is_refused_beside_sources(checkout: Path) -> None:
    assert "other sources" in (problem_of(compiled(checkout, None)) or "")


def test_missing_module_is_no_problem_and_a_broken_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "tidemark_compiled_modules"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / f"native_broken{sysconfig.get_config_var('EXT_SUFFIX')}").write_bytes(b"no library")
    (package / "native_old.py").write_text("from evaluator.events import OldEvent")
    problems = {}
    for name in ("native_missing", "native_broken", "native_old"):
        with pytest.raises(ImportError) as raised:
            exec(f"from {package.name} import {name}", {})
        problems[name] = problem_of_import(raised.value, package.name)
    importlib.invalidate_caches()
    assert problems["native_missing"] is None
    assert "native_broken" in (problems["native_broken"] or "")
    assert "OldEvent" in (problems["native_old"] or "")
