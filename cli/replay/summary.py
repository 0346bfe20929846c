"""What a replay came to: events accepted, duplicated and rejected, why, and which alerts fired."""

from collections import Counter
from dataclasses import dataclass, field

from google.rpc import error_details_pb2, status_pb2
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.client.batches import Batch
from cli.client.errors import status_reason
from cli.words import gauge_words
from generated.tidemark.v1.alert_service_pb2 import EvaluateUsageResponse
from generated.tidemark.v1.notification_pb2 import Transition
from generated.tidemark.v1.threshold_pb2 import TransitionKind

FIRST_LINES = 5  # line numbers shown for each reason
FIRST_FIRINGS = 20  # transitions shown one by one
MAX_REASONS = 50  # of rows that never became an event; what there is beyond them is counted as one
UNREADABLE_ROW = "unreadable row"  # our own reason, for rows that never became an event


@dataclass
class Refusal:
    """The events that were rejected for one reason: how many, where the first stand, what was said of the first."""

    count: int = 0
    lines: list[int] = field(default_factory=list)
    message: str = ""

    def add(self, line: int, message: str) -> None:
        """Counts one more."""
        self.count += 1
        if len(self.lines) < FIRST_LINES:
            self.lines.append(line)
        self.message = self.message or message


@dataclass
class Firing:
    """How often an alert fired in one way, and for whom."""

    alert_name: str
    kind: str
    count: int = 0
    customers: set[str] = field(default_factory=set)


@dataclass
class Summary:
    """The running totals of a replay."""

    rows: int = 0
    accepted: int = 0
    duplicates: int = 0
    refusals: dict[tuple[str, str], Refusal] = field(default_factory=dict)
    firings: dict[tuple[str, int], Firing] = field(default_factory=dict)
    first: list[Transition] = field(default_factory=list)
    unshown_rejections: int = 0  # that answers left out
    unshown_transitions: int = 0  # that answers left out

    @property
    def rejected(self) -> int:
        """How many rows were not counted."""
        return sum(refusal.count for refusal in self.refusals.values()) + self.unshown_rejections

    @property
    def transitions(self) -> int:
        """How many thresholds were reached or resolved."""
        return sum(firing.count for firing in self.firings.values()) + self.unshown_transitions

    @property
    def unacknowledged(self) -> int:
        """How many rows were read of which the server has said nothing."""
        return self.rows - self.accepted - self.duplicates - self.rejected

    def unreadable(self, line: int, message: str, kind: str = "") -> None:
        """Counts a row that never became an event; each kind (otherwise each message) is a reason of its own."""
        key = (UNREADABLE_ROW, kind or message)
        if key not in self.refusals and len(self.refusals) >= MAX_REASONS:
            key = (UNREADABLE_ROW, "")
        self._refuse(key, line, message)

    def _refuse(self, key: tuple[str, str], line: int, message: str) -> None:
        self.refusals.setdefault(key, Refusal()).add(line, message)

    def acknowledge(self, batch: Batch, response: EvaluateUsageResponse) -> None:
        """Counts what the server said of one batch."""
        self.accepted += response.accepted
        self.duplicates += response.duplicates
        self.unshown_rejections += response.omitted.rejection_count
        self.unshown_transitions += response.omitted.transition_count
        for rejection in response.rejected:
            line = batch.lines[rejection.index]
            self._refuse((_grouping(rejection.status), ""), line, _description(rejection.status))
        for transition in response.transitions:
            key = (transition.alert_id, transition.kind)
            kind = TransitionKind.Name(transition.kind).removeprefix("TRANSITION_KIND_").lower()
            firing = self.firings.setdefault(key, Firing(transition.alert_name, kind))
            firing.count += 1
            firing.customers.add(transition.gauge.customer_id)
            if len(self.first) < FIRST_FIRINGS:
                self.first.append(transition)

    def show(self, console: Console) -> None:
        """Prints the totals, then the rejections and the firings where there are any."""
        totals = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        totals.add_column(justify="right", style="number")
        totals.add_column()
        for count, words, style in (
            (self.rows, "rows read", ""),
            (self.accepted, "accepted", "good"),
            (self.duplicates, "duplicates: counted before, not counted again", "quiet"),
            (self.rejected, "rejected", "bad" if self.rejected else "quiet"),
            (self.unacknowledged, "read, but not acknowledged", "warn"),
            (self.transitions, "thresholds reached or resolved", ""),
        ):
            if style == "warn" and not count:
                continue
            totals.add_row(f"{count:,}", f"[{style}]{words}[/]" if style else words)
        console.print(totals)
        if self.unshown_transitions:
            console.print(
                f"[quiet]{self.unshown_transitions:,} of them were left out of the answers, and are not in the tables"
                " below; what they notify is in the notifications. A smaller --batch-size shows more[/]"
            )
        if self.unshown_rejections:
            console.print(
                f"[bad]{self.unshown_rejections:,} of the rejections were left out of the answers[/]: replay the file"
                " again with a smaller --batch-size to see why"
            )
        if self.refusals:
            console.print(self._refusals())
        if self.firings:
            console.print(self._firings())
            console.print(self._first())

    def _refusals(self) -> Table:
        table = _table("rejected", "reason", "rows", "first lines", "the first was told")
        table.columns[1].justify = "right"
        for (reason, _), refusal in sorted(self.refusals.items(), key=lambda item: -item[1].count):
            more = " …" if refusal.count > len(refusal.lines) else ""
            lines = ", ".join(map(str, refusal.lines)) + more
            table.add_row(f"[bad]{escape(reason)}[/]", f"{refusal.count:,}", lines, escape(refusal.message))
        return table

    def _firings(self) -> Table:
        table = _table("alerts that fired", "alert", "what", "times", "customers")
        table.columns[2].justify = table.columns[3].justify = "right"
        for (alert_id, _), firing in self.firings.items():
            style = "warn" if firing.kind == "reached" else "good"
            name = f"{escape(firing.alert_name)} [quiet]{alert_id}[/]"
            table.add_row(name, f"[{style}]{firing.kind}[/]", f"{firing.count:,}", f"{len(firing.customers):,}")
        return table

    def _first(self) -> Table:
        title = f"the first {len(self.first)}" if self.transitions > len(self.first) else "one by one"
        table = _table(title, "alert", "gauge", "level", "value", "event")
        table.columns[2].justify = table.columns[3].justify = "right"
        for transition in self.first:
            reached = transition.kind == TransitionKind.TRANSITION_KIND_REACHED
            style = "warn" if reached else "good"
            table.add_row(
                escape(transition.alert_name),
                escape(gauge_words(transition.gauge)),
                f"[{style}]{transition.level}[/]",
                transition.value,
                escape(transition.event_id),
            )
        return table


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
    """Reason and fields: two events with a bad quantity belong together, one with a bad time does not."""
    reason = status_reason(status).removeprefix("ERROR_REASON_") or f"CODE_{status.code}"
    fields = Counter(violation.field.rpartition("].")[2] for violation in _violations(status).field_violations)
    return f"{reason} ({', '.join(sorted(fields))})" if fields else reason


def _description(status: status_pb2.Status) -> str:
    violations = _violations(status).field_violations
    return violations[0].description if violations else status.message
