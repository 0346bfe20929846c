"""Prints the result of a replay: for people, with a plot on a terminal, or as JSON."""

from __future__ import annotations

import json
import os
import sys

import click

from cli.replay.options import Options, Plan
from cli.replay.plot import plot
from cli.replay.row_file import RowFile
from cli.replay.summary import Summary
from cli.replay.times import TimeReader
from cli.rich_console import standard_output

_PLAIN_TERMINALS = ("dumb", "unknown", "linux")  # the console of Linux has few signs


def show_result(summary: Summary, planned: Plan, rows: RowFile, options: Options) -> None:
    """Prints the summary."""
    remarks = [*planned.remarks, *_about_times(planned.times, options)]
    rejected_file = str(options.rejected) if options.rejected is not None and summary.rejected else None
    if options.as_json:
        found = {"format": rows.form, **summary.as_json(), "times": dict(planned.times.forms), "remarks": remarks}
        click.echo(json.dumps(found | {"rejected_file": rejected_file}, ensure_ascii=False))
        return
    console = standard_output()
    summary.show(console)
    for remark in remarks:
        console.print(f"[quiet]{remark}[/]")
    if rejected_file is not None:
        console.print(
            f"the rejected rows are in [name]{rejected_file}[/]: mend them, and replay it with the same options",
            soft_wrap=True,
        )
    if sys.stdout.isatty():
        plain = os.environ.get("TERM") in _PLAIN_TERMINALS or not console.encoding.lower().startswith("utf")
        for line in plot(summary.timeline, console.width, ascii_only=plain):
            console.print(line, markup=False, no_wrap=True)


def _about_times(times: TimeReader, options: Options) -> list[str]:
    """How times were read."""
    zone = options.time_zone.key if options.time_zone is not None else "UTC"
    shown = [
        f"{count:,} in {form} since 1970"
        if form.endswith("seconds")
        else f"{count:,} without a zone, read as {zone}"
        if form == "without a zone"
        else f"{count:,} with a zone"
        for form, count in times.forms.items()
    ]
    remarks = [f"times: {', '.join(shown)}"] if shown else []
    if times.repeated:
        found = _counted(times.repeated, "local time came", "local times came")
        remarks.append(f"{found} twice when clocks went back: the first was taken")
    if times.skipped:
        found = _counted(times.skipped, "local time does", "local times do")
        remarks.append(f"{found} not exist, because clocks went forward: the offset before was taken")
    return remarks


def _counted(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"
