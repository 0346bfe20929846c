"""What a replay would send, without a server: the first events, and the rows that give none."""

from __future__ import annotations

import json
import time

import click
from google.protobuf.json_format import MessageToDict

from cli.console import print_progress
from cli.replay.batches import Batches, FileBatch
from cli.replay.source import FileEndedEarly
from cli.replay.summary import Summary
from generated.tidemark.v1.usage_pb2 import UsageEvent

SHOWN = 5  # events


def show_events(batches: Batches, summary: Summary, *, quietly: bool) -> None:
    """Reads the whole file, counts it in `summary`, and prints the first events as JSON lines; quietly: not these."""
    shown = 0
    summary.is_dry = True
    started = time.monotonic()
    try:
        for batch in batches.all():
            _count(summary, batch)
            for content in batch.events[: SHOWN - shown]:
                shown += 1
                if not quietly:
                    event = MessageToDict(UsageEvent.FromString(content), preserving_proto_field_name=True)
                    click.echo(json.dumps(event, ensure_ascii=False))
    except FileEndedEarly as error:
        print_progress(f"{error}; it ended after row {error.rows:,}")
    _count(summary, batches.tail)
    summary.seconds = time.monotonic() - started


def _count(summary: Summary, batch: FileBatch) -> None:
    summary.read += batch.read
    summary.would_send += len(batch.events)
    summary.timeline.add_events(batch.seconds)
    summary.settle(batch)
