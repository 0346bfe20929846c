"""How a command prints: a table or lines for people, JSON or YAML for programs."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import click

from cli.console import ConfigurationProblem, print_result
from cli.resources import details, grid
from cli.resources.cells import Times, cell, style_of
from cli.resources.documents import tree_of
from cli.resources.tables.model import Column
from cli.sections import SectionOption
from cli.yaml_text import yaml_of
from runtime.clock import Clock, SystemClock

OUTPUT = "Output"  # the heading of these options in a help


class Format(Enum):
    """What a command prints."""

    PEOPLE = "people"
    JSON = "json"
    YAML = "yaml"


@dataclass(frozen=True)
class Printer:
    """Prints messages on standard output. width: columns of the terminal; None: no limit."""

    format: Format
    width: int | None
    clock: Clock

    @property
    def is_terminal(self) -> bool:
        """Whether a person reads the output."""
        return self.width is not None

    @property
    def times(self) -> Times:
        """How times are written now."""
        return Times(self.clock.now()) if sys.stdout.isatty() else Times()

    def rows(self, columns: Sequence[Column], messages: Iterable[Any]) -> None:
        """Prints a table; for programs a line of JSON, or a document of YAML, for each message."""
        if self.format is Format.PEOPLE:
            for line in self.table(columns, messages):
                print_result(line)
            return
        for message in messages:
            self.program(message, inline=True)

    def table(self, columns: Sequence[Column], messages: Iterable[Any]) -> Iterable[str]:
        """The lines of a table."""
        times = self.times
        cells = [[cell(message, column, times) for column in columns] for message in messages]
        return grid.lines(columns, cells, style_of, self.width)

    def one(self, message: Any) -> None:
        """Prints one message as a whole."""
        if self.format is Format.PEOPLE:
            for line in details.lines_of(message, self.clock.now(), of_program=not sys.stdout.isatty()):
                print_result(line)
        else:
            self.program(message, inline=False)

    def program(self, message: Any, *, inline: bool) -> None:
        """Prints one message for a program."""
        if self.format is Format.JSON:
            tree = tree_of(message, json_names=True)
            click.echo(json.dumps(tree, ensure_ascii=False, indent=None if inline else 2))
        else:
            separator = "---\n" if inline else ""
            click.echo(separator + yaml_of(tree_of(message, json_names=False)), nl=False)


def printer_of(named: dict[str, Any]) -> Printer:
    """The Printer of the options of `output_options`, which are taken out of `named`."""
    as_json, as_yaml, wide = named.pop("as_json"), named.pop("as_yaml"), named.pop("wide", False)
    if as_json and as_yaml:
        raise ConfigurationProblem("--json and --yaml exclude each other: give one of them")
    chosen = Format.JSON if as_json else Format.YAML if as_yaml else Format.PEOPLE
    return Printer(chosen, None if wide else terminal_width(), SystemClock())


def terminal_width() -> int | None:
    """The columns of the terminal; None if the output is not one."""
    if not sys.stdout.isatty():
        return int(os.environ["COLUMNS"]) if os.environ.get("COLUMNS", "").isdecimal() else None
    return shutil.get_terminal_size().columns


def output_options(*, wide: bool) -> list[Callable[[Any], Any]]:
    """The options of the output, in the order of the help. wide: with --wide, for tables."""
    options = [
        click.option(
            "--json", "as_json", is_flag=True, cls=SectionOption, section=OUTPUT, help="Print JSON, for programs."
        ),
        click.option(
            "--yaml",
            "as_yaml",
            is_flag=True,
            cls=SectionOption,
            section=OUTPUT,
            help="Print YAML, as files for --file have it.",
        ),
    ]
    if wide:
        options.append(
            click.option(
                "--wide",
                "-w",
                is_flag=True,
                cls=SectionOption,
                section=OUTPUT,
                help="Print all columns, and cut nothing.",
            )
        )
    return options
