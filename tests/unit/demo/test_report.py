"""The report of the demo: right only when everything matches exactly."""

import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from rich.console import Console

from cli.rich_console import THEME
from demo import definitions, report
from demo.comparison import Comparison
from demo.contract import usage_event
from demo.definitions import AlertDefinition, Event, thresholds
from demo.expectation import Expectation
from demo.latency import Probe, percentile
from demo.receiver import Received, VerifiedWebhooks
from demo.traffic import Sent
from demo.transitions import TransitionKey, transitions_of_body
from generated.tidemark.v1.gauge_pb2 import CostMeasure, Gauge
from generated.tidemark.v1.threshold_pb2 import TransitionKind
from generated.tidemark.v1.transition_pb2 import Transition
from generated.tidemark.v1.usage_pb2 import Rejection, UsageOutcome
from tidemark_client.usage.batches import Batch

NOW = datetime(2026, 3, 20, tzinfo=UTC)
ALERT = AlertDefinition("spend", definitions.SPEND_THRESHOLD_REACHED, "USD", thresholds("10"))
EVENT = Event("e1", "acme", "tokens", "1", NOW, cost="12.50")


def new_comparison() -> Comparison:
    made = Comparison(Expectation((), (), NOW))
    made.expectation.create(ALERT, NOW)
    return made


def transition(level: str = "10", *, notified: bool = True) -> Transition:
    gauge = Gauge(customer_id="acme", cost=CostMeasure(currency="USD"), value="12.5")
    gauge.billing_period.start_time.FromDatetime(datetime(2026, 3, 1, tzinfo=UTC))
    return Transition(
        alert_display_name="spend",
        kind=TransitionKind.TRANSITION_KIND_REACHED,
        level=level,
        gauge=gauge,
        event_id="e1",
        notified=notified,
    )


def body(level: str = "10", **changes: Any) -> bytes:
    data = {
        "alert_display_name": "spend",
        "gauge": {
            "customer_id": "acme",
            "currency": "USD",
            "group": [],
            "period": {"start_time": "2026-03-01T00:00:00.000000Z", "end_time": "2026-04-01T00:00:00.000000Z"},
        },
        "sequence": 1,
        "transitions": [{"kind": "REACHED", "level": level, "event_id": "e1"}],
        **changes,
    }
    return json.dumps({"id": "ntf_1", "data": data}).encode()


def received(level: str = "10", sequence: int = 1) -> Received:
    return Received("ntf_1", b"", tuple(transitions_of_body(body(level))), sequence, 0.0)


def happened(
    *,
    answer: UsageOutcome | None = None,
    arrived: tuple[Received, ...] = (received(),),
    faults: tuple[str, ...] = (),
) -> tuple[bool, str]:
    """The verdict and the report for one event that reaches one threshold."""
    comparison = new_comparison()
    event = comparison.sending(Sent(EVENT))
    comparison.acknowledge(
        Batch("b", [usage_event(event)]), answer or UsageOutcome(accepted=1, transitions=[transition()])
    )
    webhooks = VerifiedWebhooks(
        received={str(number): one for number, one in enumerate(arrived)}, faults=list(faults)
    )
    stream = io.StringIO()
    right = report.print_report(Console(file=stream, width=150, theme=THEME), [ALERT], comparison, webhooks)
    return right, stream.getvalue()


def test_everything_as_expected_is_right() -> None:
    right, page = happened()
    assert right
    assert "✗" not in page


@pytest.mark.parametrize(
    ("circumstances", "words"),
    [
        ({"arrived": ()}, "1 missing, 0 not expected"),
        ({"arrived": (received(), received())}, "0 missing, 1 not expected"),
        ({"arrived": (received("11"),)}, "1 missing, 1 not expected"),
        ({"arrived": (received(sequence=2),)}, "are numbered [2]"),
        ({"faults": ("ntf_9 is not signed correctly",)}, "ntf_9 is not signed correctly"),
        ({"answer": UsageOutcome(accepted=1)}, "1 missing, 0 not expected"),
        ({"answer": UsageOutcome(duplicates=1, transitions=[transition()])}, "see the events above"),
        ({"answer": UsageOutcome(accepted=1, transitions=[transition(notified=False)])}, "1 missing"),
    ],
)
def test_anything_else_is_wrong_and_said(circumstances: dict[str, Any], words: str) -> None:
    right, page = happened(**circumstances)
    assert not right
    assert words in page


def test_a_rejection_counts_by_its_reason() -> None:
    comparison = new_comparison()
    event = comparison.sending(Sent(EVENT, "EVENT_INVALID"))
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason="ERROR_REASON_EVENT_INVALID"))
    answer = UsageOutcome(rejected=[Rejection(status=status_pb2.Status(details=[detail]))])
    comparison.acknowledge(Batch("b", [usage_event(event)]), answer)
    assert not comparison.answers_differ()
    assert comparison.rejected() == 1
    assert comparison.expectation.transitions == []


def test_a_further_check_decides_too() -> None:
    console = Console(file=io.StringIO(), theme=THEME)
    assert report.print_checks(console, new_comparison(), VerifiedWebhooks(), [("counters", "")])
    assert not report.print_checks(console, new_comparison(), VerifiedWebhooks(), [("counters", "2 are wrong")])


def test_a_body_gives_the_same_crossing_as_an_answer() -> None:
    (transition,) = transitions_of_body(body("10.0"))
    assert transition == TransitionKey(
        "spend", "acme", "", "USD", (), datetime(2026, 3, 1, tzinfo=UTC), "REACHED", "10", "e1"
    )


def test_a_body_that_leaves_transitions_out_is_refused() -> None:
    with pytest.raises(ValueError, match="3 transitions were left out"):
        transitions_of_body(body(omitted=3))


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 50), (0.99, 99), (1.0, 100)])
def test_percentile_is_the_value_at_its_share_of_the_sorted_values(share: float, value: float) -> None:
    assert percentile(list(range(100, 0, -1)), share) == value


def test_latency_is_measured_or_said_not_to_be() -> None:
    assert "no latency" in report.latency_line(Probe())
    assert "p50 [number]20.0 ms[/]" in report.latency_line(Probe([0.01], [0.02]))
