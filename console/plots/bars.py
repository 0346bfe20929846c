"""Bars: a value against its thresholds and its limit; counts in equal intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from markupsafe import Markup

from console.plots.marks import ZERO, element, percent, title

HEIGHT = 16
_ROOM = Decimal("1.06")  # of the scale beyond what is shown


@dataclass(frozen=True)
class Tick:
    """A level on a bar. label: for people. kind: reached, open or limit."""

    level: Decimal
    label: str
    kind: str = "open"


def gauge_bar(value: Decimal | None, ticks: Sequence[Tick], label: str, *, alarm: bool = False) -> Markup:
    """A value as a bar from zero, with ticks. label: the text alternative."""
    top = max([value or ZERO, *(tick.level for tick in ticks), ZERO])
    scale = top * _ROOM if top > 0 else Decimal(1)
    parts = [element("rect", class_="bar-ground", x=0, y=4, width="100%", height=HEIGHT - 8, rx=4)]
    if value is not None and value > 0:
        kind = "bar-fill bar-alarm" if alarm else "bar-fill"
        parts.append(element("rect", class_=kind, x=0, y=4, width=percent(value / scale), height=HEIGHT - 8, rx=4))
    parts += [
        element(
            "rect",
            title(tick.label),
            class_=f"bar-tick tick-{tick.kind}",
            x=percent(max(tick.level, ZERO) / scale),
            y=0,
            width=2,
            height=HEIGHT,
        )
        for tick in ticks
    ]
    return element(
        "svg", Markup("").join(parts), class_="bar", width="100%", height=HEIGHT, role="img", aria_label=label
    )


def columns(counts: Sequence[tuple[str, Sequence[int]]], label: str, height: int = 64) -> Markup:
    """A column for each interval, of parts above each other. counts: the title of each column, and its parts."""
    top = max([sum(parts) for _, parts in counts], default=0) or 1
    width = Decimal(1) / max(len(counts), 1)
    drawn = []
    for index, (text, parts) in enumerate(counts):
        base = Decimal(height - 1)
        for part, count in enumerate(parts):
            if not count:
                continue
            length = max(Decimal(count) * (height - 2) / top, Decimal(2))
            base -= length
            drawn.append(
                element(
                    "rect",
                    title(text),
                    class_=f"column column-{part}",
                    x=percent(width * index),
                    width=percent(width * Decimal("0.8")),
                    y=f"{base:.1f}",
                    height=f"{length:.1f}",
                )
            )
    ground = element("line", class_="axis", x1=0, x2="100%", y1=height - 0.5, y2=height - 0.5)
    return element(
        "svg",
        Markup("").join([*drawn, ground]),
        class_="columns",
        width="100%",
        height=height,
        role="img",
        aria_label=label,
    )
