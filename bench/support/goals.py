"""Figures with goals, as a table for people and as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table


@dataclass(frozen=True)
class Goal:
    """A limit of a figure: at least or at most this."""

    limit: float
    at_most: bool = False

    def reached(self, measured: float) -> bool:
        """Whether the figure is within the limit."""
        return measured <= self.limit if self.at_most else measured >= self.limit

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {shown(self.limit)}"


@dataclass(frozen=True)
class Figure:
    """One measured number. unit: "" for a ratio. details: more numbers for the file of results."""

    row: str
    name: str
    measured: float
    unit: str = ""
    goal: Goal | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name}: {shown(self.measured)} {self.unit}".rstrip()

    def figures(self) -> dict[str, Any]:
        """The figure for the file of results."""
        return {
            "row": self.row,
            "name": self.name,
            "measured": round(self.measured, 4),
            "unit": self.unit,
            "goal": None if self.goal is None else str(self.goal),
            "reached": None if self.goal is None else self.goal.reached(self.measured),
            **self.details,
        }


@dataclass(frozen=True)
class Report:
    """All figures of a part, in the order of measurement.

    title: of the table. loads: the load average before each row. failures: of rows that could not be measured.
    details: more for the file of results.
    """

    title: str
    measured: Sequence[Figure]
    loads: dict[str, float]
    failures: dict[str, str]
    details: dict[str, Any] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        return {
            **self.details,
            "load_average_before": self.loads,
            "failed_rows": self.failures,
            "figures": [figure.figures() for figure in self.measured],
        }

    def table(self) -> Table:
        """The figures as a table for people."""
        table = Table(title=self.title)
        table.add_column("row", no_wrap=True)
        table.add_column("figure")
        for name, width in (("measured", 10), ("goal", 8), ("reached", 7)):
            table.add_column(name, justify="right", min_width=width)
        for figure in self.measured:
            goal = figure.goal
            table.add_row(
                figure.row,
                figure.name,
                f"{shown(figure.measured)} {figure.unit}".strip(),
                "" if goal is None else f"{goal} {figure.unit}".strip(),
                "" if goal is None else "yes" if goal.reached(figure.measured) else "no",
            )
        for row in self.failures:
            table.add_row(row, "all figures of the row", "failed", "", "no")
        return table


def shown(number: float) -> str:
    """The number with three significant digits, or all digits before the point."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"
