"""The request of a command: from its arguments, its options and a file."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from cli.console import ConfigurationProblem
from cli.resources.documents import BadDocument, Node, fill, nodes_of
from cli.resources.fields import FieldOption
from cli.resources.values import BadValue

STANDARD_INPUT = "-"


def text_of_file(path: str) -> str:
    """The text of a file, or of standard input for `-`. Raises Problem."""
    try:
        if path == STANDARD_INPUT:
            return sys.stdin.read()
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationProblem(f"{path} cannot be read: {reason}") from None


def name_of_file(path: str) -> str:
    """The name of a file in messages."""
    return "standard input" if path == STANDARD_INPUT else path


def read_file(path: str, message: Any) -> None:
    """Fills a message from the one document of a file. Raises Problem."""
    try:
        documents: list[Node] = list(nodes_of(text_of_file(path)))
        if len(documents) != 1:
            what = "nothing" if not documents else f"{len(documents)} documents"
            raise ConfigurationProblem(
                f"{name_of_file(path)} has {what}; this command takes one", ["`tidemark apply` takes several"]
            )
        fill(message, documents[0])
    except BadDocument as error:
        raise ConfigurationProblem(f"{name_of_file(path)}: {error}") from None


def given(context: click.Context, options: Sequence[click.Parameter]) -> list[tuple[FieldOption, Any]]:
    """The options of fields that the command line gives, with their values."""
    found = []
    for option in options:
        if isinstance(option, FieldOption) and option.name is not None:
            value = context.params.get(option.name)
            if value is not None and value != () and not (option.leaf.is_flag and not value):
                found.append((option, value))
    return found


def put_options(request: Any, options: Sequence[tuple[FieldOption, Any]]) -> None:
    """Puts the values of options into a request. Raises click.BadParameter."""
    chosen: dict[tuple[str, str], FieldOption] = {}
    for option, value in options:
        _check_oneofs(option, chosen)
        try:
            option.leaf.put(request, value)
        except BadValue as error:
            raise click.BadParameter(str(error), param=option) from None


def _check_oneofs(option: FieldOption, chosen: dict[tuple[str, str], FieldOption]) -> None:
    """Raises click.UsageError when two options give two cases of one oneof: the second would replace the first."""
    for number, field in enumerate(option.leaf.path):
        oneof = field.containing_oneof
        if oneof is None or len(oneof.fields) < 2:
            continue
        place = (".".join(one.name for one in option.leaf.path[:number]), str(oneof.full_name))
        before = chosen.setdefault(place, option)
        if before.leaf.path[number] != field:
            raise click.UsageError(f"{before.opts[0]} and {option.opts[0]} exclude each other: give one of them.")


def put_arguments(request: Any, paths: Sequence[str], values: Mapping[str, str | None]) -> list[str]:
    """Puts positional arguments into a request; returns the paths of those that are given neither here nor before."""
    missing = []
    for path in paths:
        *outer, last = path.split(".")
        target = request
        for step in outer:
            target = getattr(target, step)
        value = values.get(path)
        if value is not None:
            field = target.DESCRIPTOR.fields_by_name[last]
            try:
                setattr(target, last, int(value) if field.cpp_type != field.CPPTYPE_STRING else value)
            except ValueError:
                raise click.BadParameter(f"{value!r} is no whole number", param_hint=metavar_of(path)) from None
        elif not getattr(target, last):
            missing.append(path)
    return missing


def metavar_of(path: str) -> str:
    """The name of a positional argument in a help: CUSTOMER for customer_id."""
    return path.rpartition(".")[2].removesuffix("_id").removesuffix("_number").upper()
