"""The result of a replay: accepted, duplicate and rejected events, and the transitions of alerts."""

from collections import Counter
from dataclasses import dataclass, field

from google.rpc import error_details_pb2, status_pb2
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.client.errors import status_reason
from cli.descriptions import describe_gauge
from generated.tidemark.v1.threshold_pb2 import TransitionKind
from generated.tidemark.v1.transition_pb2 import Transition
from generated.tidemark.v1.usage_pb2 import UsageOutcome
from tidemark_client.usage.batches import Batch

FIRST_LINES = 5  # line numbers shown for each reason
FIRST_TRANSITIONS = 20  # shown one by one
MAX_REASONS = 50  # of unreadable rows; all further reasons are counted as one
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
    """The running totals of a replay."""

    rows: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejection_groups: dict[tuple[str, str], RejectionGroup] = field(default_factory=dict)
    transition_groups: dict[tuple[str, int], TransitionGroup] = field(default_factory=dict)
    first_transitions: list[Transition] = field(default_factory=list)
    omitted_rejections: int = 0  # counted in answers, but not contained in them
    omitted_transitions: int = 0

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
        """The number of rows that were read, but neither answered by the server nor rejected."""
        return self.rows - self.accepted - self.duplicates - self.rejected

    def unreadable(self, line: int, message: str, kind: str = "") -> None:
        """Counts a row that gives no event, by its kind of problem; without a kind, by its message."""
        key = (UNREADABLE_ROW, kind or message)
        if key not in self.rejection_groups and len(self.rejection_groups) >= MAX_REASONS:
            key = (UNREADABLE_ROW, "")
        self._reject(key, line, message)

    def _reject(self, key: tuple[str, str], line: int, message: str) -> None:
        self.rejection_groups.setdefault(key, RejectionGroup()).add(line, message)

    def acknowledge(self, batch: Batch, outcome: UsageOutcome) -> None:
        """Counts the results of one batch."""
        self.accepted += outcome.accepted
        self.duplicates += outcome.duplicates
        self.omitted_rejections += outcome.omitted.rejection_count
        self.omitted_transitions += outcome.omitted.transition_count
        for rejection in outcome.rejected:
            line = batch.lines[rejection.index]
            self._reject((_grouping(rejection.status), ""), line, _description(rejection.status))
        for transition in outcome.transitions:
            key = (transition.alert_id, transition.kind)
            kind = TransitionKind.Name(transition.kind).removeprefix("TRANSITION_KIND_").lower()
            group = self.transition_groups.setdefault(key, TransitionGroup(transition.alert_display_name, kind))
            group.count += 1
            group.customers.add(transition.gauge.customer_id)
            if len(self.first_transitions) < FIRST_TRANSITIONS:
                self.first_transitions.append(transition)

    def show(self, console: Console) -> None:
        """Prints the totals, then the rejections and the transitions if there are any."""
        totals = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        totals.add_column(justify="right", style="number")
        totals.add_column()
        for count, words, style in (
            (self.rows, "rows read", ""),
            (self.accepted, "accepted", "good"),
            (self.duplicates, "duplicates: counted before, and not counted again", "quiet"),
            (self.rejected, "rejected", "bad" if self.rejected else "quiet"),
            (self.unacknowledged, "read, but not acknowledged", "warn"),
            (self.transitions, "thresholds reached or resolved", ""),
        ):
            if style == "warn" and not count:
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
        if self.rejection_groups:
            console.print(self._rejection_table())
        if self.transition_groups:
            console.print(self._transition_table())
            console.print(self._first_transitions_table())

    def _rejection_table(self) -> Table:
        table = _table("rejected", "reason", "rows", "first lines", "first message")
        table.columns[1].justify = "right"
        for (reason, _), group in sorted(self.rejection_groups.items(), key=lambda item: -item[1].count):
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
