"""The result of a replay: accepted, duplicate and rejected events, and the transitions of alerts."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from google.rpc import error_details_pb2, status_pb2
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.client.errors import status_reason
from cli.descriptions import describe_gauge
from cli.replay.batches import FileBatch
from cli.replay.rows import Row
from cli.replay.timeline import Timeline
from cli.replay.times import EPOCH
from generated.tidemark.v1.threshold_pb2 import TransitionKind
from generated.tidemark.v1.transition_pb2 import Transition
from generated.tidemark.v1.usage_pb2 import UsageOutcome

FIRST_LINES = 5  # line numbers shown for each reason
FIRST_TRANSITIONS = 20  # shown one by one
MAX_REASONS = 50  # of unreadable rows; all further reasons are counted as one
JSON_PARTS = 120  # of the timeline
UNREADABLE_ROW = "unreadable row"  # the reason of rows that give no event, beside those of the server


@dataclass
class RejectionGroup:
    """The rows that were rejected for one reason: their number, the first lines, the message of the first one."""

    count: int = 0
    lines: list[int] = field(default_factory=list)
    message: str = ""

    def add(self, line: int, message: str) -> None:
        """Counts one more row."""
        self.count += 1
        if len(self.lines) < FIRST_LINES:
            self.lines.append(line)
        self.message = self.message or message


@dataclass
class TransitionGroup:
    """The transitions of one kind of one alert: their number, and the customers. kind: reached or resolved."""

    alert_display_name: str
    kind: str
    count: int = 0
    customers: set[str] = field(default_factory=set)


@dataclass
class Summary:
    """The running totals of a replay.

    read: rows, also those of batches that are not acknowledged. rows: those that are settled. earlier: rows that an
    earlier run had acknowledged. is_dry: nothing is sent, and
    would_send is the number of events. skipped: rows that options leave out, by the
    reason. seconds: how long it took.
    """

    read: int = 0
    rows: int = 0
    earlier: int = 0
    sent: int = 0
    is_dry: bool = False
    would_send: int = 0
    accepted: int = 0
    duplicates: int = 0
    seconds: float = 0.0
    skipped: Counter[str] = field(default_factory=Counter)
    rejection_groups: dict[tuple[str, str], RejectionGroup] = field(default_factory=dict)
    transition_groups: dict[tuple[str, int], TransitionGroup] = field(default_factory=dict)
    first_transitions: list[Transition] = field(default_factory=list)
    omitted_rejections: int = 0  # counted in answers, but not contained in them
    omitted_transitions: int = 0
    timeline: Timeline = field(default_factory=Timeline)

    @property
    def rejected(self) -> int:
        """The number of rejected rows."""
        return sum(group.count for group in self.rejection_groups.values()) + self.omitted_rejections

    @property
    def transitions(self) -> int:
        """The number of thresholds that were reached or resolved."""
        return sum(group.count for group in self.transition_groups.values()) + self.omitted_transitions

    @property
    def unacknowledged(self) -> int:
        """The number of rows that were read, and whose batch the server has not answered."""
        return self.read - self.rows

    @property
    def rate(self) -> int:
        """Rows in a second."""
        return round(self.rows / self.seconds) if self.seconds else 0

    def settle(self, batch: FileBatch) -> None:
        """Counts the rows of a batch that give no event."""
        self.rows += batch.read
        self.skipped += batch.skipped
        for bad in batch.unreadable:
            key = (UNREADABLE_ROW, bad.kind or bad.message)
            if key not in self.rejection_groups and len(self.rejection_groups) >= MAX_REASONS:
                key = (UNREADABLE_ROW, "")
            self._reject(key, bad.row.line, bad.message)

    def _reject(self, key: tuple[str, str], line: int, message: str) -> None:
        self.rejection_groups.setdefault(key, RejectionGroup()).add(line, message)

    def acknowledge(self, batch: FileBatch, outcome: UsageOutcome) -> list[tuple[Row, str]]:
        """Counts the results of one batch; returns the rows that the server rejected, and why."""
        self.settle(batch)
        self.accepted += outcome.accepted
        self.duplicates += outcome.duplicates
        self.omitted_rejections += outcome.omitted.rejection_count
        self.omitted_transitions += outcome.omitted.transition_count
        self.timeline.add_events(batch.seconds)
        rejected = []
        for rejection in outcome.rejected:
            row, message = batch.rows[rejection.index], _description(rejection.status)
            self._reject((_grouping(rejection.status), ""), row.line, message)
            rejected.append((row, message))
        for transition in outcome.transitions:
            key = (transition.alert_id, transition.kind)
            kind = TransitionKind.Name(transition.kind).removeprefix("TRANSITION_KIND_").lower()
            group = self.transition_groups.setdefault(key, TransitionGroup(transition.alert_display_name, kind))
            group.count += 1
            group.customers.add(transition.gauge.customer_id)
            self.timeline.add_crossing(transition.event_time.seconds)
            if len(self.first_transitions) < FIRST_TRANSITIONS:
                self.first_transitions.append(transition)
        return rejected

    def show(self, console: Console) -> None:
        """Prints the totals, then the rejections and the transitions if there are any."""
        totals = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        totals.add_column(justify="right", style="number")
        totals.add_column()
        for count, words, style in (
            (self.earlier, "rows that an earlier run has sent, and that are not sent again", "quiet"),
            (self.read, "rows read", ""),
            (sum(self.skipped.values()), "skipped", "quiet"),
            *(
                [(self.would_send, "events, of which none was sent", "good")]
                if self.is_dry
                else [
                    (self.accepted, "accepted", "good"),
                    (self.duplicates, "duplicates: counted before, and not counted again", "quiet"),
                ]
            ),
            (self.rejected, "rejected", "bad" if self.rejected else "quiet"),
            (self.unacknowledged, "read, but not acknowledged", "warn"),
            (self.transitions, "thresholds reached or resolved", ""),
        ):
            if not count and (style == "warn" or words.startswith(("rows that", "skipped"))):
                continue
            totals.add_row(f"{count:,}", f"[{style}]{words}[/]" if style else words)
        console.print(totals)
        if self.omitted_transitions:
            console.print(
                f"[quiet]{self.omitted_transitions:,} of them are not contained in the answers, so the tables below"
                " do not show them; the notifications do. With a smaller --batch-size, answers contain more[/]"
            )
        if self.omitted_rejections:
            console.print(
                f"[bad]{self.omitted_rejections:,} of the rejections are not contained in the answers[/]: replay the"
                " file again with a smaller --batch-size to see their reasons"
            )
        if self.rows:
            console.print(f"[quiet]{self._pace()}[/]")
        for reason, count in self.skipped.most_common(MAX_REASONS):
            console.print(f"[quiet]skipped {count:,}: {escape(reason)}[/]")
        if self.rejection_groups:
            console.print(self._rejection_table())
        if self.transition_groups:
            console.print(self._transition_table())
            console.print(self._first_transitions_table())

    def _pace(self) -> str:
        text = f"{self.rate:,} rows a second, {self.seconds:.1f} seconds"
        if self.timeline.first is None or self.timeline.last is None:
            return text
        first, last = (_time_text(second) for second in (self.timeline.first, self.timeline.last))
        return f"{text}; events of {first} to {last}"

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        first, length, events, crossings = self.timeline.in_columns(JSON_PARTS)
        return {
            "rows": self.read,
            "rows_of_earlier_runs": self.earlier,
            "skipped": dict(self.skipped),
            "sent": self.sent,
            "would_send": self.would_send,
            "accepted": self.accepted,
            "duplicates": self.duplicates,
            "rejected": self.rejected,
            "rejections": [
                {"reason": reason, "rows": group.count, "first_lines": group.lines, "message": group.message}
                for (reason, _), group in self._sorted_rejections()
            ],
            "unacknowledged": self.unacknowledged,
            "seconds": round(self.seconds, 3),
            "rows_a_second": self.rate,
            "first_event_time": None if self.timeline.first is None else _time_text(self.timeline.first),
            "last_event_time": None if self.timeline.last is None else _time_text(self.timeline.last),
            "crossings": self.transitions,
            "alerts": [
                {
                    "alert_id": alert_id,
                    "display_name": group.alert_display_name,
                    "kind": group.kind,
                    "count": group.count,
                    "customers": len(group.customers),
                }
                for (alert_id, _), group in self.transition_groups.items()
            ],
            "timeline": {
                "start_time": _time_text(first) if events else None,
                "part_seconds": length,
                "events": events,
                "crossings": crossings,
            },
        }

    def _sorted_rejections(self) -> list[tuple[tuple[str, str], RejectionGroup]]:
        return sorted(self.rejection_groups.items(), key=lambda item: -item[1].count)

    def _rejection_table(self) -> Table:
        table = _table("rejected", "reason", "rows", "first lines", "first message")
        table.columns[1].justify = "right"
        for (reason, _), group in self._sorted_rejections():
            more = " …" if group.count > len(group.lines) else ""
            lines = ", ".join(map(str, group.lines)) + more
            table.add_row(f"[bad]{escape(reason)}[/]", f"{group.count:,}", lines, escape(group.message))
        return table

    def _transition_table(self) -> Table:
        table = _table("thresholds by alert", "alert", "transition", "count", "customers")
        table.columns[2].justify = table.columns[3].justify = "right"
        for (alert_id, _), group in self.transition_groups.items():
            style = "warn" if group.kind == "reached" else "good"
            name = f"{escape(group.alert_display_name)} [quiet]{alert_id}[/]"
            table.add_row(name, f"[{style}]{group.kind}[/]", f"{group.count:,}", f"{len(group.customers):,}")
        return table

    def _first_transitions_table(self) -> Table:
        title = (
            f"the first {len(self.first_transitions)}"
            if self.transitions > len(self.first_transitions)
            else "one by one"
        )
        table = _table(title, "alert", "gauge", "level", "value", "event")
        table.columns[2].justify = table.columns[3].justify = "right"
        for transition in self.first_transitions:
            reached = transition.kind == TransitionKind.TRANSITION_KIND_REACHED
            style = "warn" if reached else "good"
            table.add_row(
                escape(transition.alert_display_name),
                escape(describe_gauge(transition.gauge)),
                f"[{style}]{transition.level}[/]",
                transition.value,
                escape(transition.event_id),
            )
        return table


def _time_text(second: int) -> str:
    return f"{(EPOCH + timedelta(seconds=second)).isoformat()}Z"


def _table(title: str, *columns: str) -> Table:
    return Table(
        *columns,
        title=f"\n[bold]{title}[/]",
        title_justify="left",
        title_style="",
        box=None,
        padding=(0, 3, 0, 0),
        header_style="quiet",
    )


def _violations(status: status_pb2.Status) -> error_details_pb2.BadRequest:
    bad = error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Unpack(bad):
            break
    return bad


def _grouping(status: status_pb2.Status) -> str:
    """The reason and the invalid fields: two events with an invalid quantity are in one group."""
    reason = status_reason(status).removeprefix("ERROR_REASON_") or f"CODE_{status.code}"
    fields = Counter(violation.field.rpartition("].")[2] for violation in _violations(status).field_violations)
    return f"{reason} ({', '.join(sorted(fields))})" if fields else reason


def _description(status: status_pb2.Status) -> str:
    violations = _violations(status).field_violations
    return violations[0].description if violations else status.message
