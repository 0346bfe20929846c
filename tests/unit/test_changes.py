"""The fragments of the changelog have names that the program that collects them understands."""

import re
from pathlib import Path

import pytest
from towncrier import _builder
from towncrier._settings.load import Config, load_config_from_file

ROOT = Path(__file__).parents[2]
NAME = re.compile(r"(\d+|\+[a-z0-9-]+)\.(alerts|webhooks|operation)(\.\d+)?\.md")


def collected(root: Path, config: Config) -> set[str]:
    """The names of the files that it takes. Raises for names that it does not understand, and for two of one key."""
    _, files = _builder.find_fragments(str(root), config, strict=True)
    return {Path(name).name for name, _ in files}


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config_from_file(str(ROOT), str(ROOT / "pyproject.toml"))


def test_every_fragment_is_collected(config: Config) -> None:
    names = {path.name for path in (ROOT / "changes").iterdir()} - {"README.md"}
    assert collected(ROOT, config) == names
    assert [name for name in names if not NAME.fullmatch(name)] == []
    assert [name for name in names if not (ROOT / "changes" / name).read_text().strip()] == []


@pytest.mark.parametrize("second", ["7.operation.reads.md", "07.operation.md", "7.news.md"])
def test_a_name_that_is_not_understood_or_is_taken_is_found(tmp_path: Path, config: Config, second: str) -> None:
    folder = tmp_path / "changes"
    folder.mkdir()
    for name in ("7.operation.md", second):
        (folder / name).write_text("Something is different.\n")
    with pytest.raises(Exception, match=r"multiple files|Invalid news fragment"):
        collected(tmp_path, config)
