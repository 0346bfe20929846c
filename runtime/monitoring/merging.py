"""Scrapes of several processes as one scrape, in which a label says which process a series belongs to."""

from collections.abc import Iterable
from typing import NamedTuple

from runtime.monitoring.exposition import END

_HELP, _TYPE = "# HELP ", "# TYPE "


class Scrape(NamedTuple):
    """The scrape of one process. label: with its value, such as `worker="1"`; None: its series stay as they are."""

    text: str
    label: str | None


def label_of(name: str, value: str) -> str:
    """A label as it stands in a series."""
    escaped = value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return f'{name}="{escaped}"'


def merged(scrapes: Iterable[Scrape], *, is_openmetrics: bool) -> bytes:
    """The series of all scrapes, which are in one format; each family of metrics once, as the format asks for."""
    heads: dict[str, list[str]] = {}  # by the name of the family
    series: dict[str, list[str]] = {}
    for scrape in scrapes:
        for name, (head, samples) in _families(scrape.text).items():
            heads.setdefault(name, head)
            series.setdefault(name, []).extend(_labelled(line, scrape.label) for line in samples)
    lines = [line for name, head in heads.items() for line in (*head, *series[name])]
    text = "".join(f"{line}\n" for line in lines).encode()
    return text + END if is_openmetrics else text


def _families(text: str) -> dict[str, tuple[list[str], list[str]]]:
    """The comments and the samples of each family."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    head, samples = list[str](), list[str]()
    for line in text.splitlines():
        if line.startswith(_HELP):  # the first line of each family
            head, samples = [line], []
            found[line.removeprefix(_HELP).partition(" ")[0]] = head, samples
        elif line.startswith("# "):
            if line != END.decode().strip():
                head.append(line)
        elif line:
            samples.append(line)
    return found


def _labelled(line: str, label: str | None) -> str:
    """A sample with one more label. Its name has neither a blank nor a brace."""
    if label is None:
        return line
    name_end = next(index for index, character in enumerate(line) if character in " {")
    if line[name_end] == " ":
        return f"{line[:name_end]}{{{label}}}{line[name_end:]}"
    rest = line[name_end + 1 :]
    return f"{line[:name_end]}{{{label}{'' if rest.startswith('}') else ','}{rest}"
