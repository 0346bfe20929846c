"""The files of `tidemark apply`: what they declare, with the place of each item."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.apply.kinds import ARCHIVED, BY_NAME, OWNER_LABEL, Kind
from cli.console import ConfigurationProblem
from cli.resources.documents import BadDocument, Node, fill, nodes_of, strip
from cli.resources.requests import STANDARD_INPUT, name_of_file, text_of_file

SUFFIXES = (".yaml", ".yml", ".json")
MAX_MISTAKES = 40  # that are shown


@dataclass(frozen=True)
class Declared:
    """One item of a file. place: `alerts.yaml:12`. key: what it is found by."""

    kind: Kind
    key: str
    message: Any
    place: str


def read_all(paths: Sequence[str]) -> tuple[list[Declared], set[str]]:
    """What files and folders declare, and the names of the kinds in them. Raises Problem, with the first mistakes."""
    found: list[Declared] = []
    kinds: set[str] = set()
    mistakes: list[str] = []
    for path in _files(paths):
        try:
            for node in nodes_of(text_of_file(path)):
                for declared in _items(path, node, kinds, mistakes):
                    found.append(declared)
        except BadDocument as error:
            mistakes.append(f"{name_of_file(path)}: {error}")
    places: dict[tuple[str, str], str] = {}
    for one in found:
        first = places.setdefault((one.kind.name, one.key), one.place)
        if first != one.place:
            mistakes.append(f"{one.place}: the {one.kind.one} {one.key} stands in {first}, too")
    if mistakes:
        count = f"{len(mistakes):,} mistake{'s' if len(mistakes) > 1 else ''}"
        if len(mistakes) > MAX_MISTAKES:
            mistakes[MAX_MISTAKES:] = [f"… and {len(mistakes) - MAX_MISTAKES:,} more"]
        raise ConfigurationProblem(f"the files have {count}; nothing is applied", mistakes)
    return found, kinds


def _files(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        if path == STANDARD_INPUT:
            yield path
            continue
        if not Path(path).exists():
            raise ConfigurationProblem(f"{path} does not exist")
        if Path(path).is_dir():
            inside = sorted(
                str(each)
                for each in Path(path).rglob("*")
                if each.suffix in SUFFIXES
                and each.is_file()
                and not any(part.startswith(".") for part in each.relative_to(path).parts)
            )
            if not inside:
                raise ConfigurationProblem(f"the folder {path} has no file that ends with {', '.join(SUFFIXES)}")
            yield from inside
        else:
            yield path


def _items(path: str, node: Node, kinds: set[str], mistakes: list[str]) -> Iterator[Declared]:
    """The items of one document. Adds what is wrong to `mistakes`."""
    if node.kind != "mapping":
        raise BadDocument(f"line {node.line}: write lists of {', '.join(BY_NAME)}, as in `alerts: [...]`")
    for name, value in node.pairs:
        kind = BY_NAME.get(name.replace("-", "_"))
        if kind is None:
            mistakes.append(f"{name_of_file(path)}:{value.line}: {name!r} is none of {', '.join(BY_NAME)}")
            continue
        kinds.add(kind.name)
        if value.is_null:
            continue
        if value.kind != "list":
            mistakes.append(f"{name_of_file(path)}:{value.line}: {name} is a list; begin each item with a dash")
            continue
        for item in value.items:
            place = f"{name_of_file(path)}:{item.line}"
            message = kind.new()
            try:
                fill(message, item)
            except BadDocument as error:
                where, _, what = str(error).removeprefix("line ").partition(": ")
                mistakes.append(f"{name_of_file(path)}:{where}: {what}")
                continue
            problem = _prepare(kind, message)
            if problem:
                mistakes.append(f"{place}: {problem}")
            else:
                yield Declared(kind, kind.key(message), message, place)


def _prepare(kind: Kind, message: Any) -> str:
    """Removes what only the server sets; returns what is wrong."""
    strip(message, kind.ids)
    if kind.has_labels and OWNER_LABEL in message.labels:
        del message.labels[OWNER_LABEL]
    if not kind.key(message):
        needed = {"alerts": "uniqueness_key (or alert_id)", "endpoints": "display_name (or endpoint_id)"}
        names = needed.get(kind.name, " and ".join(kind.ids))
        return f"this {kind.one} has no {names}, by which it is found"
    if kind.name == "alerts" and message.state == ARCHIVED:
        return "an alert that is not wanted any more is left out of the files: --prune archives it"
    return ""
