"""docs/metrics.md: its tables, and those that a scrape of real processes makes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.metrics_core import Metric

from tests.support.monitoring.scraping import Scraped

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "metrics.md"

_HEAD = "| name | type | labels | unit | of | meaning |\n|---|---|---|---|---|---|\n"
_TABLE = re.compile(r"(<!-- metrics: (.*) -->\n)\n?(?:\|.*\n)*\n?")
# Labels that tell the processes of one port apart, and those of buckets.
PROCESSES, _BUCKET = ("process", "worker"), "le"
OF_PARENTS = "tidemark_child_up"  # its labels name the children
_UNITS = {"seconds": "seconds", "bytes": "bytes", "fds": "files", "info": "–"}
_OF = {"server": "server", "notifier": "notifier", "": "parent"}


@dataclass(frozen=True)
class Documented:
    """One metric, as its row shows it. of: the processes that have it."""

    name: str
    kind: str
    labels: Sequence[str]
    of: Sequence[str]
    meaning: str

    @property
    def unit(self) -> str:
        """The unit, by the name: without one it is a number."""
        stem = self.name.removesuffix("_total")
        return next((unit for end, unit in _UNITS.items() if stem.endswith(f"_{end}")), "number")

    @property
    def row(self) -> str:
        """Its row."""
        labels = ", ".join(f"`{label}`" for label in self.labels) or "–"
        return f"| `{self.name}` | {self.kind} | {labels} | {self.unit} | {', '.join(self.of)} | {self.meaning} |\n"


def documented(scraped: Scraped) -> list[Documented]:
    """The metrics of a scrape of `tidemark up`, which shows a server with workers and a notifier."""
    return sorted((_of_family(family) for family in scraped.families), key=lambda one: one.name)


def _of_family(family: Metric) -> Documented:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    labels = {label for sample in family.samples for label in sample.labels}
    of = {_OF[sample.labels.get("process", "")] for sample in family.samples}
    of |= {"parent" for sample in family.samples if _is_parents(sample.labels)}
    if name == OF_PARENTS:
        of = {"parent"}
    return Documented(
        name,
        family.type,
        sorted(labels - {*PROCESSES, _BUCKET}),
        sorted(of, key=["server", "notifier", "parent"].index),
        family.documentation,
    )


def _is_parents(labels: Mapping[str, str]) -> bool:
    """Whether a series is of a parent of workers, which has no number itself."""
    return labels.get("process") == "server" and "worker" not in labels


def with_tables(page: str, metrics: Sequence[Documented]) -> str:
    """The page with the tables of these metrics: each is in the first one whose marker has a prefix of its name."""
    left = list(metrics)

    def table(found: "re.Match[str]") -> str:
        prefixes = tuple(found[2].split())
        rows = [one for one in left if one.name.startswith(prefixes)]
        left[:] = [one for one in left if one not in rows]
        return f"{found[1]}\n{_HEAD}" + "".join(one.row for one in rows) + "\n"

    text = _TABLE.sub(table, page).rstrip() + "\n"
    assert not left, f"docs/metrics.md has no table for {[one.name for one in left]}"
    return text
