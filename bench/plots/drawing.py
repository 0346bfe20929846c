"""Draws the charts of the results that exist into docs/plots/, by a script in an environment of its own."""

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from bench.plots.charts import CHARTS, Chart, Missing
from bench.support import results
from bench.support.environment import Environment, Unavailable
from bench.support.machine import ROOT

FOLDER = ROOT / "docs" / "plots"

_ENVIRONMENT = Environment("plots", ("matplotlib==3.11.2",))


async def draw_all(report: Callable[[str], None]) -> None:
    """Draws each chart whose results exist. Reports each, and why others are left out."""
    charts: list[Chart] = []
    for make in CHARTS:
        try:
            charts.append(make(read))
        except Missing as error:
            report(f"{make.__name__}: not drawn: {error}")
    if charts:
        try:
            await _draw(charts)
        except Unavailable as error:
            report(f"nothing was drawn: {error}")
            return
    for chart in charts:
        report(f"{chart.name}: {(FOLDER / chart.name).relative_to(ROOT)}.png")


def read(part: str) -> Any:
    """The figures of a part. Raises Missing."""
    if (found := results.of_part(part)) is None:
        raise Missing(f"make bench PART={part} was not run here")
    return found


async def _draw(charts: list[Chart]) -> None:
    FOLDER.mkdir(exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        await _ENVIRONMENT.python(),
        "-m",
        "bench.plots.with_matplotlib",
        str(FOLDER),
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"},
    )
    _, printed = await process.communicate(json.dumps([asdict(chart) for chart in charts]).encode())
    if process.returncode:
        raise Unavailable(printed.decode(errors="replace").strip()[-300:])
