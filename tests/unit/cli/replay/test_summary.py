"""The summary of a replay."""

import io

from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from rich.console import Console

from cli.replay.batches import FileBatch, Unreadable
from cli.replay.rows import Row
from cli.replay.summary import FIRST_LINES, FIRST_TRANSITIONS, Summary
from cli.rich_console import THEME
from generated.tidemark.v1.gauge_pb2 import CostMeasure, Gauge
from generated.tidemark.v1.threshold_pb2 import TransitionKind
from generated.tidemark.v1.transition_pb2 import Transition
from generated.tidemark.v1.usage_pb2 import OmittedResults, Rejection, UsageOutcome


def rejection(index: int, reason: str, field: str = "") -> Rejection:
    details = [any_pb2.Any(), any_pb2.Any()]
    details[0].Pack(error_details_pb2.ErrorInfo(reason=f"ERROR_REASON_{reason}"))
    bad = error_details_pb2.BadRequest()
    if field:
        bad.field_violations.add(field=f"events[{index}].{field}", description=f"{field} is wrong")
    details[1].Pack(bad)
    return Rejection(index=index, status=status_pb2.Status(code=3, message=f"event {index}", details=details))


def batch(size: int, first_line: int = 2) -> FileBatch:
    rows = [Row(line - 1, line, []) for line in range(first_line, first_line + size)]
    return FileBatch("b", [b""] * size, rows, [0] * size, read=size)


def unreadable(summary: Summary, line: int, message: str, kind: str = "") -> None:
    summary.settle(FileBatch(unreadable=[Unreadable(Row(line, line, []), message, kind)], read=1))


def transition(customer: str, kind: TransitionKind.ValueType, name: str = "Spend [all]") -> Transition:
    gauge = Gauge(customer_id=customer, cost=CostMeasure(currency="USD"), value="12")
    return Transition(
        alert_id="alt_1", alert_display_name=name, kind=kind, level="10", value="12", gauge=gauge, event_id="e"
    )


def shown(summary: Summary) -> str:
    stream = io.StringIO()
    summary.show(Console(file=stream, theme=THEME, width=160, highlight=False))
    return stream.getvalue()


def test_totals_add_up_over_batches() -> None:
    summary = Summary(read=9)
    summary.acknowledge(batch(4), UsageOutcome(accepted=3, duplicates=1))
    summary.acknowledge(batch(4), UsageOutcome(accepted=2, duplicates=1, rejected=[rejection(0, "EVENT_TOO_OLD")]))
    unreadable(summary, 7, "quantity is empty")
    assert (summary.accepted, summary.duplicates, summary.rejected) == (5, 2, 2)


def test_rejections_are_grouped_by_reason_and_field_with_their_first_lines() -> None:
    summary = Summary()
    rejected = [rejection(index, "EVENT_INVALID", "quantity") for index in range(7)]
    rejected.append(rejection(8, "EVENT_INVALID", "cost"))
    rejected.append(rejection(9, "EVENT_CONFLICT"))
    summary.acknowledge(batch(10, first_line=100), UsageOutcome(accepted=1, rejected=rejected))
    by_reason = {reason: group for (reason, _), group in summary.rejection_groups.items()}
    assert set(by_reason) == {"EVENT_INVALID (quantity)", "EVENT_INVALID (cost)", "EVENT_CONFLICT"}
    assert by_reason["EVENT_INVALID (quantity)"].count == 7
    assert by_reason["EVENT_INVALID (quantity)"].lines == list(range(100, 100 + FIRST_LINES))
    assert by_reason["EVENT_INVALID (cost)"].lines == [108]
    assert by_reason["EVENT_CONFLICT"].message == "event 9"
    assert "100, 101, 102, 103, 104 …" in shown(summary)


def test_summary_counts_and_reports_results_that_answers_omit() -> None:
    summary = Summary(read=10)
    reached = TransitionKind.TRANSITION_KIND_REACHED
    omitted = OmittedResults(transition_count=1_200, rejection_count=3)
    summary.acknowledge(
        batch(10),
        UsageOutcome(
            accepted=6,
            rejected=[rejection(0, "EVENT_CONFLICT")],
            transitions=[transition("acme", reached)],
            omitted=omitted,
        ),
    )
    assert (summary.rejected, summary.transitions) == (4, 1_201)
    text = shown(summary)
    assert "1,200 of them are not contained in the answers" in text
    assert "3 of the rejections are not contained in the answers" in text


def test_unreadable_rows_are_grouped_by_their_problem() -> None:
    summary = Summary()
    for line in (3, 5):
        unreadable(summary, line, "quantity is empty")
    unreadable(summary, 4, "event_time is empty")
    assert [group.count for group in summary.rejection_groups.values()] == [2, 1]
    assert "3, 5" in shown(summary)


def test_transitions_are_counted_by_alert_and_kind_and_the_first_are_shown() -> None:
    summary = Summary()
    reached = TransitionKind.TRANSITION_KIND_REACHED
    found = [transition(f"customer-{number % 7}", reached) for number in range(FIRST_TRANSITIONS + 5)]
    found.append(transition("customer-0", TransitionKind.TRANSITION_KIND_RESOLVED))
    summary.acknowledge(batch(30), UsageOutcome(accepted=30, transitions=found))
    groups = {group.kind: group for group in summary.transition_groups.values()}
    assert groups["reached"].count == FIRST_TRANSITIONS + 5
    assert len(groups["reached"].customers) == 7
    assert groups["resolved"].count == 1
    text = shown(summary)
    assert f"the first {FIRST_TRANSITIONS}" in text
    assert "Spend [all]" in text  # names are text, not markup


def test_summary_without_rejections_and_transitions_is_short() -> None:
    assert len(shown(Summary(read=2, rows=2, accepted=2)).splitlines()) == 6
