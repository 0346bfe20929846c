"""docs/cli-reference.md: every command with its options, as its help shows them."""

from collections.abc import Iterator

import click

from cli.main import COMMANDS, tidemark
from cli.resources.alert_creation import ConditionsGroup
from cli.sections import LAST

# Sections of options that all commands of the API have; they are described once.
COMMON = frozenset(LAST[1:])
INTRODUCTION = """\
# Reference of the command line

`make docs` makes this page from the commands. [cli.md](cli.md) is the guide, and describes what all commands have in
common: output, pages, connection and exit codes.
"""


def command_line() -> str:
    """The text of docs/cli-reference.md."""
    context = click.Context(tidemark, info_name="tidemark", max_content_width=118, terminal_width=118)
    parts = [INTRODUCTION, *_common(context)]
    for section in dict.fromkeys(entry.section for entry in COMMANDS.values()):
        parts.append(f"## {section}\n")
        for name, entry in COMMANDS.items():
            if entry.section == section:
                command = tidemark.get_command(context, name)
                assert command is not None, name
                parts += _command(command, click.Context(command, info_name=name, parent=context), "###")
    return "\n".join(parts)


def _common(context: click.Context) -> Iterator[str]:
    """What `alerts list` has of the common sections: it has all of them."""
    group = tidemark.get_command(context, "alerts")
    assert isinstance(group, click.Group)
    command = group.get_command(context, "list")
    assert command is not None
    yield "## Options of all commands of the API\n"
    yield "`Pages` are options of lists.\n"
    yield from _options(command, click.Context(command, info_name="list", parent=context), COMMON)


def _command(command: click.Command, context: click.Context, mark: str) -> Iterator[str]:
    yield f"{mark} {context.command_path}\n"
    yield f"    {command.get_usage(context).removeprefix('Usage: ').replace(chr(10), '')}\n"
    yield f"{_text(command.help or command.get_short_help_str(300))}\n"
    shown = {getattr(each, "section", "") or "Options" for each in command.get_params(context)} - COMMON
    if "Condition" in shown and context.parent is not None and context.parent.info_name == "create":
        # Their other options are those of all conditions, which stand once below `create`.
        shown = {"Condition"}
    yield from _options(command, context, shown)
    if isinstance(command, ConditionsGroup):
        spend = command.get_command(context, "spend")
        assert spend is not None
        yield "Every condition has these options, and those of its own:\n"
        yield from _options(spend, context, {"Scope", "Options"})
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None, name
            yield from _command(inner, click.Context(inner, info_name=name, parent=context), mark + "#")


def _options(command: click.Command, context: click.Context, sections: frozenset[str] | set[str]) -> Iterator[str]:
    rows = []
    for parameter in command.get_params(context):
        section = getattr(parameter, "section", "") or "Options"
        record = None if isinstance(parameter, click.Argument) else parameter.get_help_record(context)
        if section in sections and record is not None and "--help" not in record[0]:
            rows.append(
                f"| `{record[0].replace('|', chr(92) + '|')}` | {_text(record[1]).replace('|', chr(92) + '|')} |"
            )
    if rows:
        yield "| option | what it does |\n|---|---|"
        yield from rows
        yield ""


def _text(text: str) -> str:
    lines = [line.strip() for line in text.replace("\b\n", "").strip().splitlines()]
    paragraphs = " ".join(line or "\n\n" for line in lines)
    return "\n\n".join(part.strip() for part in paragraphs.split("\n\n"))
