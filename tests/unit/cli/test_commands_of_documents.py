"""The commands that the documents show exist, with the options that they show."""

import re
import shlex
from pathlib import Path

import click
import pytest

from cli.main import tidemark

ROOT = Path(__file__).parents[3]


def shown(document: str) -> list[str]:
    """The command lines of a document's shell sessions."""
    blocks: list[str] = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / document).read_text(), re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("tidemark ")]


def test_document_shows_commands() -> None:
    assert len(shown("security.md")) >= 6


@pytest.mark.parametrize("line", shown("security.md"))
def test_shown_command_exists(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = tidemark
    context = click.Context(command)
    while isinstance(command, click.Group):
        found = command.get_command(context, words.pop(0))
        assert found is not None, line
        command, context = found, click.Context(found, parent=context)
    command.make_parser(context).parse_args(words)  # raises for options that do not exist
