"""Draws charts, which it reads as JSON, as PNG files into the folder of its argument; a script."""

import json
import sys
from typing import Any

import matplotlib.pyplot as plt  # type: ignore[import-not-found]  # only in the environment of bench/plots/drawing.py
from matplotlib.ticker import FuncFormatter, NullFormatter  # type: ignore[import-not-found]

# Okabe and Ito's colours, which differ also for people who see some colours alike; markers and hatches differ too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "osD^vP"
INCHES = (5.6, 4.2)  # of a panel
ROW_INCHES = 0.62  # height of the bars of one place
HATCH = "////"

Panel = dict[str, Any]


def main() -> None:
    """Draws all charts."""
    plt.rcParams.update(
        {
            "font.size": 11,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#dddddd",
            "legend.frameon": False,
            "hatch.linewidth": 0.8,
        }
    )
    for chart in json.load(sys.stdin):
        draw(chart, f"{sys.argv[1]}/{chart['name']}.png")


def draw(chart: dict[str, Any], path: str) -> None:
    """Draws one chart: its panels side by side."""
    panels = chart["panels"]
    rows = panels[0]["kind"] == "rows"
    height = 1.6 + ROW_INCHES * len(panels[0]["places"]) if rows else INCHES[1]
    figure, axes = plt.subplots(1, len(panels), figsize=(INCHES[0] * len(panels), height), sharey=rows, squeeze=False)
    for panel, on in zip(panels, axes[0], strict=True):
        {"lines": lines, "columns": columns, "rows": horizontal}[panel["kind"]](on, panel)
        on.set_title(panel["title"], fontsize=12, loc="left")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def lines(on: Any, panel: Panel) -> None:
    """A line for each series."""
    places = panel["places"]
    at = places if all(isinstance(place, int | float) for place in places) else range(len(places))
    for number, series in enumerate(panel["series"]):
        found = [(x, y) for x, y in zip(at, series["values"], strict=True) if y is not None]
        on.plot(
            [x for x, _ in found],
            [y for _, y in found],
            color=COLOURS[number],
            marker=MARKERS[number],
            label=series["name"],
            linewidth=1.8,
        )
    if isinstance(at, range):
        on.set_xticks(at, places)
    values_axis(on.yaxis, on.set_yscale, panel)
    if not panel["logarithmic"]:
        on.set_ylim(bottom=0)
    on.set_xlabel(panel["places_label"])
    on.set_ylabel(panel["values_label"])
    on.legend()


def columns(on: Any, panel: Panel) -> None:
    """Groups of vertical bars with their values."""
    width = 0.8 / len(panel["series"])
    for number, series in enumerate(panel["series"]):
        at = [place + (number - (len(panel["series"]) - 1) / 2) * width for place in range(len(panel["places"]))]
        bars = on.bar(at, series["values"], 0.92 * width, color=COLOURS[number], label=series["name"])
        on.bar_label(bars, [value_text(value) for value in series["values"]], padding=2, fontsize=10)
    on.set_xticks(range(len(panel["places"])), panel["places"])
    on.grid(axis="x", visible=False)
    values_axis(on.yaxis, on.set_yscale, panel)
    on.margins(y=0.18)
    on.set_xlabel(panel["places_label"])
    on.set_ylabel(panel["values_label"])
    on.legend(loc="upper left", ncols=len(panel["series"]))


def horizontal(on: Any, panel: Panel) -> None:
    """Groups of horizontal bars with their values; those of marked places are hatched."""
    height = 0.8 / len(panel["series"])
    for number, series in enumerate(panel["series"]):
        at = [place - (number - (len(panel["series"]) - 1) / 2) * height for place in range(len(panel["places"]))]
        bars = on.barh(at, series["values"], 0.92 * height, color=COLOURS[number], label=series["name"])
        for place, bar in enumerate(bars):
            if place in panel["marked"]:
                bar.set(hatch=HATCH, edgecolor="white")
        on.bar_label(bars, [value_text(value) for value in series["values"]], padding=3, fontsize=10)
    on.set_yticks(range(len(panel["places"])), panel["places"])
    on.grid(axis="y", visible=False)
    values_axis(on.xaxis, on.set_xscale, panel)
    on.margins(x=0.16)
    on.set_xlabel("\n".join(filter(None, [panel["values_label"], panel["mark"] if panel["marked"] else ""])))
    on.legend(loc="lower right")


def values_axis(axis: Any, set_scale: Any, panel: Panel) -> None:
    """The scale and the numbers of the axis of the values."""
    if panel["logarithmic"]:
        set_scale("log")
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: value_text(value)))


def value_text(value: float) -> str:
    """A number as people write it."""
    return f"{value:,.0f}" if value >= 20 or value == 0 else f"{value:,.3g}"


if __name__ == "__main__":
    main()
