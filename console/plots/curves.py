"""Curves: a value over time, with levels as lines and what happened as marks, and the same as a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from markupsafe import Markup

from console.plots.marks import ONE, ZERO, element, number, percent, title
from console.plots.scales import round_ticks, time_ticks
from console.words import amounts, times

HEIGHT = 240
_TOP, _BOTTOM = 14, 26  # of the plot: room for the label of the highest level, and for the times
_INNER = HEIGHT - _TOP - _BOTTOM
_INNER_WIDTH = 1000


@dataclass(frozen=True)
class Level:
    """A horizontal line. kind: threshold, reached or limit. text: beside the line; label: its title."""

    value: Decimal
    label: str
    kind: str = "threshold"
    text: str = ""


@dataclass(frozen=True)
class Mark:
    """Something that happened. kind: reached or resolved."""

    time: datetime
    value: Decimal
    label: str
    kind: str = "reached"


@dataclass(frozen=True)
class Curve:
    """What to draw, from `start` to `end`. points: in the order of their times. projection: where it will be.

    zone: in which days begin.
    """

    start: datetime
    end: datetime
    points: Sequence[tuple[datetime, Decimal]]
    levels: Sequence[Level] = ()
    marks: Sequence[Mark] = ()
    projection: tuple[datetime, Decimal] | None = None
    zone: str = "UTC"
    label: str = ""

    def svg(self) -> Markup:
        """The plot."""
        low, high = self._range()
        parts = [*self._grid(low, high), *self._times(), self._line(low, high)]
        parts += [*self._levels(low, high), *self._now(), *self._marks(low, high)]
        return element(
            "svg",
            Markup("").join(parts),
            class_="curve",
            width="100%",
            height=HEIGHT,
            role="img",
            aria_label=self.label,
        )

    def _range(self) -> tuple[Decimal, Decimal]:
        values = [value for _, value in self.points] + [mark.value for mark in self.marks]
        top = max([*values, ZERO])
        low = min([*values, ZERO])
        near = [level.value for level in self.levels if level.value <= max(top * 4, ONE) or not top]
        first = min((level.value for level in self.levels if level.value > top), default=None)
        if first is not None and first not in near:
            near.append(first)
        high = max([top, *near])
        low = min([low, *(level.value for level in self.levels if level.value < 0)], default=low)
        if high <= low:
            high = low + 1
        return low, low + (high - low) * Decimal("1.08")

    def _x(self, time: datetime) -> Decimal:
        whole = Decimal((self.end - self.start) / timedelta(microseconds=1))
        return Decimal((time - self.start) / timedelta(microseconds=1)) / whole if whole else ZERO

    def _y(self, value: Decimal, low: Decimal, high: Decimal) -> Decimal:
        return _TOP + _INNER * (ONE - (value - low) / (high - low))

    def _grid(self, low: Decimal, high: Decimal) -> list[Markup]:
        lines = []
        for tick in round_ticks(low, high):
            y = number(self._y(tick, low, high))
            lines.append(element("line", class_="grid", x1=0, x2="100%", y1=y, y2=y))
            below = self._y(tick, low, high) - 4
            lines.append(element("text", amounts.compact(tick), class_="tick", x=0, y=number(below)))
        return lines

    def _times(self) -> list[Markup]:
        found = []
        ticks = time_ticks(self.start, self.end, self.zone)
        for index, (time, text) in enumerate(ticks):
            share = self._x(time)
            anchor = "start" if share < Decimal("0.04") else "end" if share > Decimal("0.94") else "middle"
            kind = "tick" if index % 2 == 0 else "tick wide-only"
            found.append(element("text", text, class_=kind, x=percent(share), y=HEIGHT - 6, text_anchor=anchor))
        return found

    def _line(self, low: Decimal, high: Decimal) -> Markup:
        """The curve in a plot of its own, which is stretched to the width."""
        if not self.points:
            return Markup("")
        drawn = [
            (number(self._x(time) * _INNER_WIDTH), number(self._y(value, low, high))) for time, value in self.points
        ]
        line = " ".join(f"{x},{y}" for x, y in drawn)
        zero = number(self._y(max(ZERO, low), low, high))
        area = f"{drawn[0][0]},{zero} {line} {drawn[-1][0]},{zero}"
        parts = [
            element("polygon", class_="area", points=area),
            element("polyline", class_="line", points=line),
        ]
        if self.projection is not None:
            x, y = self._x(self.projection[0]) * _INNER_WIDTH, self._y(self.projection[1], low, high)
            parts.append(
                element(
                    "polyline", class_="projection", points=f"{drawn[-1][0]},{drawn[-1][1]} {number(x)},{number(y)}"
                )
            )
        return element(
            "svg",
            Markup("").join(parts),
            x=0,
            y=0,
            width="100%",
            height=HEIGHT,
            viewBox=f"0 0 {_INNER_WIDTH} {HEIGHT}",
            preserveAspectRatio="none",
        )

    def _levels(self, low: Decimal, high: Decimal) -> list[Markup]:
        found, last = list[Markup](), Decimal(-100)
        shown = [level for level in self.levels if low <= level.value <= high]
        for level in sorted(shown, key=lambda one: -one.value):
            y = self._y(level.value, low, high)
            found.append(
                element(
                    "line",
                    title(level.label),
                    class_=f"level level-{level.kind}",
                    x1=0,
                    x2="100%",
                    y1=number(y),
                    y2=number(y),
                )
            )
            if y - last >= 14:  # otherwise the texts would be on top of each other
                found.append(
                    element(
                        "text",
                        level.text or level.label,
                        class_=f"level-text text-{level.kind}",
                        x="100%",
                        y=number(y - 4),
                        text_anchor="end",
                    )
                )
                last = y
        return found

    def _now(self) -> list[Markup]:
        if not self.points or self.points[-1][0] >= self.end:
            return []
        x = percent(self._x(self.points[-1][0]))
        return [element("line", title("now"), class_="now", x1=x, x2=x, y1=_TOP, y2=HEIGHT - _BOTTOM)]

    def _marks(self, low: Decimal, high: Decimal) -> list[Markup]:
        return [
            element(
                "circle",
                title(mark.label),
                class_=f"mark mark-{mark.kind}",
                cx=percent(self._x(mark.time)),
                cy=number(self._y(mark.value, low, high)),
                r=5,
            )
            for mark in self.marks
            if self.start <= mark.time <= self.end
        ]

    def rows(self, most: int = 24) -> list[tuple[str, str]]:
        """The curve as rows of a table: times and values, at most so many, the last one included."""
        step = max(1, -(-len(self.points) // most))
        chosen = list(self.points[::-1][::step])[::-1]
        return [(times.shown(time, self.zone), amounts.grouped(value)) for time, value in chosen]
