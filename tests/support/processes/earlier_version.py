"""The version before this one, from the history of git: for tests in which both run on one database."""

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from cli.serving.processes import child_environment
from store import migrate

ROOT = Path(__file__).resolve().parents[3]
VERSIONS = "store/migrations/versions"
FOLDERS = ("cli", "engine", "evaluator", "generated", "notifier", "runtime", "server", "store", "webhooks")
TIMEOUT = 120.0  # seconds


class EarlierVersion:
    """The files of an earlier commit. variables: the environment with which a process runs them.

    They run with the packages of this checkout, and without compiled modules.
    """

    def __init__(self, folder: Path) -> None:
        """Writes the files. Skips the test where there is no history, or where the versions exclude each other."""
        self.commit = _commit()
        archive = _git("archive", self.commit, *FOLDERS)
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        self.variables = {"PYTHONPATH": str(folder)}
        self.revision = _newest_revision(self.commit)
        oldest = _oldest_compatible()
        if self.revision < oldest:
            pytest.skip(f"the version before is at revision {self.revision}, and this one needs {oldest}")

    def run(self, *arguments: str, settings: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
        """Runs one of its commands."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "cli.main", *arguments],
            env=child_environment({**settings, **self.variables}, inherit=False),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=True,
        )

    def file_of(self, module: str) -> str:
        """The file that a process of this version imports as a module."""
        code = f"import {module}; print({module}.__file__)"
        found = subprocess.run(
            [sys.executable, "-P", "-c", code],
            env={**os.environ, **self.variables},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=True,
        )
        return found.stdout.strip()


def _commit() -> str:
    """The last tag; without one, the last commit before the newest migration."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout of git")
    if _text("rev-parse", "--is-shallow-repository") == "true":
        pytest.skip("the history of this checkout is cut off")
    if tag := _text("tag", "--list", "v*", "--merged", "HEAD", "--sort=-version:refname").partition("\n")[0]:
        return tag
    changes = _text("log", "--first-parent", "--format=%H", "--", VERSIONS).splitlines()
    # HEAD first: the newest migration may not be committed yet.
    for commit in ("HEAD", *(f"{change}^" for change in changes)):
        if _newest_revision(commit) < migrate.head():
            return commit
    raise AssertionError("no commit is older than the newest migration")


def _newest_revision(commit: str) -> str:
    names = _text("ls-tree", "--name-only", commit, f"{VERSIONS}/").splitlines()
    return max(Path(name).name.partition("_")[0] for name in names if Path(name).name[0].isdigit())


def _oldest_compatible() -> str:
    """The oldest revision whose code runs on the schema of this version."""
    for line in migrate.script_of(migrate.head()).read_text().splitlines():
        if line.startswith("oldest_compatible"):
            return line.split('"')[1]
    raise AssertionError("the newest migration declares no oldest_compatible")


def _git(*arguments: str) -> bytes:
    return subprocess.run(
        # The checkout may belong to another user than the one that runs the tests.
        ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), *arguments],
        capture_output=True,
        timeout=TIMEOUT,
        check=True,
    ).stdout


def _text(*arguments: str) -> str:
    return _git(*arguments).decode().strip()
