"""proto/breaking.py in a small repository: without a tag, with a compatible change, with one that breaks callers."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUF_YAML = "version: v2\nmodules:\n  - path: proto\nbreaking:\n  use: [FILE]\n"
PROTO = 'syntax = "proto3";\n\npackage small.v1;\n\nmessage Small {\n  string name = 1;\n}\n'


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a contract of one message, committed and without a tag."""
    folder = tmp_path / "repository"
    (folder / "proto" / "small" / "v1").mkdir(parents=True)
    (folder / ".build" / "google-protos").mkdir(parents=True)
    (folder / "third_party").mkdir()
    (folder / "buf.yaml").write_text(BUF_YAML)
    change(folder, PROTO)
    shutil.copy(ROOT / "proto" / "breaking.py", folder / "proto" / "breaking.py")
    git(folder, "init", "--quiet")
    git(folder, "add", "buf.yaml", "proto")
    git(folder, "commit", "--quiet", "--message", "The contract")
    return folder


def change(repository: Path, text: str) -> None:
    """Replaces the contract, without a commit."""
    (repository / "proto" / "small" / "v1" / "small.proto").write_text(text)


def breaking(repository: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "proto/breaking.py", *arguments],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_any_change_passes_while_there_is_no_tag(repository: Path) -> None:
    change(repository, PROTO.replace("string name", "int32 name"))
    finished = breaking(repository)
    assert finished.returncode == 0, finished.stderr
    assert "there is no tag" in finished.stdout


def test_new_field_passes_after_a_tag(repository: Path) -> None:
    git(repository, "tag", "v0.1.0")
    change(repository, PROTO.replace("}", "  string other = 2;\n}"))
    finished = breaking(repository)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stdout == "the contract breaks no caller of v0.1.0\n"


def test_changed_type_fails_after_a_tag_and_is_named(repository: Path) -> None:
    git(repository, "tag", "v0.1.0")
    change(repository, PROTO.replace("string name", "int32 name"))
    finished = breaking(repository)
    assert finished.returncode == 1
    assert 'changed type from "string" to "int32"' in finished.stdout
    assert finished.stderr == "the contract breaks callers of v0.1.0\n"


def test_contract_is_compared_with_the_last_of_several_tags(repository: Path) -> None:
    git(repository, "tag", "v0.1.0")
    change(repository, PROTO.replace("string name", "int32 name"))
    git(repository, "commit", "--quiet", "--all", "--message", "Another type")
    git(repository, "tag", "v0.2.0")
    finished = breaking(repository)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "v0.2.0" in finished.stdout
    assert breaking(repository, "v0.1.0").returncode == 1


def test_unknown_revision_is_named(repository: Path) -> None:
    finished = breaking(repository, "v9.9.9")
    assert finished.returncode == 1
    assert "v9.9.9" in finished.stderr
