"""The commands of docs/cli.md do what they say, in their order."""

import re
import shlex
from pathlib import Path

import pytest

from cli.main import COMMANDS
from cli.resources.catalog import RESOURCES
from runtime.clock import ManualClock, SystemClock
from tests.support.cli.commands import Shell

GUIDE = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
BLOCKS = re.findall(r"^```(sh|yaml)\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
LINES = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
COMMAND_LINES = [line for line in LINES if line.startswith("tidemark ")]
# They run until Ctrl-C, or need a notifier; tests/integration/cli has them.
ELSEWHERE = ("tidemark listen", "tidemark trigger usage_exceeded", "tidemark trigger endpoint.failing")


@pytest.fixture
def clock() -> ManualClock:
    """The server's clock: now, because the guide has times that are relative to now."""
    return ManualClock(SystemClock().now())


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of the guide, in the folder in which its commands run."""
    monkeypatch.chdir(tmp_path)
    for kind, text in BLOCKS:
        if kind == "yaml":
            (tmp_path / text.splitlines()[0].removeprefix("# ")).write_text(text)


async def test_every_command_of_the_guide_works_as_typed(shell: Shell, files: None) -> None:
    ids: dict[str, str] = {}
    lines = [line for line in COMMAND_LINES if not line.startswith(ELSEWHERE)]
    for line in lines:
        expected = int(found[1]) if (found := re.search(r"# ends with (\d+)", line)) else 0
        output = ""
        for part in line.split(" | "):
            words = shlex.split(part, comments=True)[1:]
            output = (
                await shell.run(*(ids.get(word, word) for word in words), text=output or None, code=expected)
            ).stdout
            ids |= {f"{found[:4]}…": found for found in re.findall(r"\b(?:alt|whe)_[a-z2-7]{26}\b", output)}
    assert len(lines) >= 40


def test_the_guide_names_commands_and_exit_codes_that_exist() -> None:
    for line in COMMAND_LINES:
        words = shlex.split(line, comments=True)
        assert words[1] in COMMANDS
    rows = re.findall(r"^\| ([0-9, ]+) \|", GUIDE, re.MULTILINE)
    assert {int(code) for row in rows for code in row.split(",")} >= set(range(9))
    assert {name for name in RESOURCES if f"tidemark {name} " in GUIDE} >= {"alerts", "customers", "balances"}
