"""Draws charts, which it reads as JSON, as PNG files into the folder of its argument; a script."""

import json
import sys
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt  # type: ignore[import-not-found]  # only in the environment of bench/plots/drawing.py
from matplotlib.patches import Patch  # type: ignore[import-not-found]
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter  # type: ignore[import-not-found]

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
    """Draws one chart: its panels side by side. Panels with the same values share their axis."""
    panels = chart["panels"]
    rows = panels[0]["kind"] == "rows"
    height = 1.6 + ROW_INCHES * len(panels[0]["places"]) if rows else INCHES[1]
    same = len({(panel["kind"], panel["values_label"]) for panel in panels}) == 1
    figure, axes = plt.subplots(
        1, len(panels), figsize=(INCHES[0] * len(panels), height), sharey=rows or same, squeeze=False
    )
    for number, (panel, on) in enumerate(zip(panels, axes[0], strict=True)):
        if rows:
            horizontal(on, panel, COLOURS[number * len(panel["series"]) :])
        else:
            {"lines": lines, "columns": columns}[panel["kind"]](on, panel)
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
    if not panel["logarithmic"]:
        on.set_ylim(0, 1.15 * max(y for series in panel["series"] for y in series["values"] if y is not None))
    values_axis(on.yaxis, on.set_yscale, panel)
    on.set_xlabel(panel["places_label"])
    on.set_ylabel(values_label(panel))
    on.yaxis.set_tick_params(labelleft=True)
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
    on.margins(y=0.28)
    on.set_xlabel(panel["places_label"])
    on.set_ylabel(values_label(panel))
    on.legend(loc="upper left", ncols=len(panel["series"]))


def horizontal(on: Any, panel: Panel, colours: Sequence[str]) -> None:
    """Groups of horizontal bars with their values; those of marked places are hatched."""
    height = 0.8 / len(panel["series"])
    for number, series in enumerate(panel["series"]):
        at = [place - (number - (len(panel["series"]) - 1) / 2) * height for place in range(len(panel["places"]))]
        bars = on.barh(at, series["values"], 0.92 * height, color=colours[number], label=series["name"])
        for place, bar in enumerate(bars):
            if place in panel["marked"]:
                bar.set(hatch=HATCH, edgecolor="white")
        on.bar_label(bars, [value_text(value) for value in series["values"]], padding=3, fontsize=10)
    on.set_yticks(range(len(panel["places"])), panel["places"])
    for place, label in enumerate(on.get_yticklabels()):  # empty for a panel that shows none
        label.set_fontweight("bold" if place == panel["own"] else "normal")
    on.grid(axis="y", visible=False)
    values_axis(on.xaxis, on.set_xscale, panel)
    on.margins(x=0.16)
    on.set_xlabel("\n".join(filter(None, [values_label(panel), panel["mark"] if panel["marked"] else ""])))
    # Patches of their own, since those of the first bars may be hatched.
    names = [series["name"] for series in panel["series"]]
    on.legend(
        handles=[Patch(color=colour, label=name) for colour, name in zip(colours, names, strict=False)],
        loc="lower right",
    )


def values_axis(axis: Any, set_scale: Any, panel: Panel) -> None:
    """The scale and the numbers of the axis of the values."""
    if panel["logarithmic"]:
        set_scale("log")
        few = panel["kind"] == "lines"  # else the numbers of a long axis would overlap
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def values_label(panel: Panel) -> str:
    """The label of the axis of the values."""
    return f"{panel['values_label']} (logarithmic)" if panel["logarithmic"] else str(panel["values_label"])


def value_text(value: float) -> str:
    """The number at a bar."""
    return f"{value:,.0f}" if value >= 20 else f"{value:,.1f}"


if __name__ == "__main__":
    main()
