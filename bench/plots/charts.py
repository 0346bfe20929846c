"""Charts of results: what is drawn, without how. Pure, so that no library for plots is needed to test it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Figures = Mapping[str, Any]  # of a part, as in its file of results

OWN = "Tidemark"  # among the peers
LINES, COLUMNS, ROWS = "lines", "columns", "rows"


@dataclass(frozen=True)
class Series:
    """Values with one name; None: there is none at this place."""

    name: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class Panel:
    """One part of a chart: `places` along one axis, a value of each series at each of them.

    kind: LINES, COLUMNS, or ROWS (horizontal bars). marked: places whose bars are hatched; `mark` says what that
    means. own: the place of Tidemark among others.
    """

    kind: str
    title: str
    places_label: str
    values_label: str
    places: Sequence[str | float]
    series: Sequence[Series]
    logarithmic: bool = False
    marked: Sequence[int] = ()
    mark: str = ""
    own: int | None = None


@dataclass(frozen=True)
class Chart:
    """A plot. name: of its file."""

    name: str
    panels: Sequence[Panel]


class Missing(Exception):
    """Results that a chart needs were not measured yet; the message names the part."""


Read = Callable[[str], Any]  # the figures of a part by its name; raises Missing


def ingest(read: Read) -> Chart:
    """Events a second by events of a message, and beside COPY."""
    return Chart("ingest", [_batches(read("batches")), _beside_copy(read("ingest"))])


def _batches(rows: Sequence[Figures]) -> Panel:
    sizes = sorted({row["batch_events"] for row in rows})
    lines: dict[str, dict[int, float]] = {}
    for row in rows:
        name = f"{row['kind']}, {_number(row['streams'], 'stream')}"
        if row["workers"] > 1:
            name += f", {row['workers']} workers"
        lines.setdefault(name, {})[row["batch_events"]] = row["events_per_second"]
    return Panel(
        LINES,
        "By events of a message",
        "events of a message",
        "events/s",
        [f"{size:,}" for size in sizes],
        [Series(name, [found.get(size) for size in sizes]) for name, found in lines.items()],
        logarithmic=True,
    )


def _beside_copy(kinds: Figures) -> Panel:
    return Panel(
        COLUMNS,
        "Beside a raw COPY of the same rows",
        "traffic",
        "events/s",
        [f"{kind}\n{found['ratio']:.2f} of COPY" for kind, found in kinds.items()],
        [
            Series(name, [found[figure] for found in kinds.values()])
            for name, figure in (("Tidemark", "events_per_second"), ("COPY", "copy_limit_events_per_second"))
        ],
    )


def latency(read: Read) -> Chart:
    """Percentiles of acknowledgements and webhooks by rate."""
    rates = read("latency")["rates"]
    shares = (("p50", "p50_ms"), ("p99", "p99_ms"), ("p99.9", "p99_9_ms"))
    return Chart(
        "latency",
        [
            Panel(
                LINES,
                title,
                "events/s",
                "ms",
                [f"{one['events_per_second']:,}" for one in rates],
                [Series(name, [one[kind][figure] for one in rates]) for name, figure in shares],
                logarithmic=True,
            )
            for title, kind in (("Event to acknowledgement", "ack"), ("Event to webhook", "webhook"))
        ],
    )


def sustained(read: Read) -> Chart:
    """Events a second, and the CPU of an event, by events stored."""
    rows = read("sustained")["rows"]
    stored = [row["stored"] / 1e6 for row in rows]
    place = "events stored (millions)"
    return Chart(
        "sustained",
        [
            Panel(
                LINES,
                "Ingest while the table grows",
                place,
                "events/s",
                stored,
                [Series("sparse, random ids", [row["events_per_second"] for row in rows])],
            ),
            Panel(
                LINES,
                "CPU of one event",
                place,
                "µs",
                stored,
                [
                    Series(name, [row[figure] for row in rows])
                    for name, figure in (("server", "server_cpu_us"), ("PostgreSQL", "database_cpu_us"))
                ],
            ),
        ],
    )


def peers(read: Read) -> Chart:
    """Events a second and the delay until a reached threshold is known, of each peer."""
    found = [*read("peers")["peers"].values()]
    found.sort(key=lambda one: one["events_per_second"]["dense"])
    places = [f"{one['title']}\nkill -9 lost {_lost(one)}" for one in found]
    losing = [number for number, one in enumerate(found) if one["lost"] or one["counted_twice"] or not one["durable"]]
    own = next((number for number, one in enumerate(found) if one["title"] == OWN), None)
    return Chart(
        "peers",
        [
            Panel(
                ROWS,
                "Events a second",
                "",
                "events/s",
                places,
                [Series(kind, [one["events_per_second"][kind] for one in found]) for kind in ("dense", "sparse")],
                marked=losing,
                mark="hatched: a crash may lose acknowledged events",
                own=own,
            ),
            Panel(
                ROWS,
                "Event to threshold known, 200 events/s",
                "",
                "ms",
                places,
                [Series(share, [one[f"known_{share}_ms"] for one in found]) for share in ("p50", "p99")],
                logarithmic=True,
                marked=losing,
                own=own,
            ),
        ],
    )


def _lost(one: Figures) -> str:
    if one["lost"] == 0:
        return "nothing" if one["durable"] else "nothing in this run"
    return "all" if one["lost"] >= one["acknowledged"] else f"{one['lost']:,} of {one['acknowledged']:,}"


def _number(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


CHARTS: Sequence[Callable[[Read], Chart]] = (ingest, latency, sustained, peers)
