"""The demo's verdict: right only when everything matches exactly."""

import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from rich.console import Console

from cli.client.batches import Batch
from cli.rich_console import THEME
from demo import report, world
from demo.contract import usage_event
from demo.expectation import Expectation
from demo.latency import Probe, percentile
from demo.ledger import Ledger
from demo.receiver import Received, Receiver
from demo.told import crossings_of_body
from demo.traffic import Sent
from demo.world import AlertPlan, Crossing, Event, Line
from generated.tidemark.v1.alert_service_pb2 import EvaluateUsageResponse
from generated.tidemark.v1.notification_pb2 import Transition
from generated.tidemark.v1.threshold_pb2 import TransitionKind
from generated.tidemark.v1.usage_pb2 import CostMeasure, Gauge, Rejection

NOW = datetime(2026, 3, 20, tzinfo=UTC)
PLAN = AlertPlan("spend", world.SPEND_THRESHOLD_REACHED, "USD", (Line(Decimal(10)),))
EVENT = Event("e1", "acme", "tokens", "1", NOW, cost="12.50")


def ledger() -> Ledger:
    made = Ledger(Expectation((), ()))
    made.expectation.watch(PLAN, NOW)
    return made


def transition(level: str = "10", *, notified: bool = True) -> Transition:
    gauge = Gauge(customer_id="acme", cost=CostMeasure(currency="USD"), value="12.5")
    gauge.billing_period.start_time.FromDatetime(datetime(2026, 3, 1, tzinfo=UTC))
    return Transition(
        alert_name="spend",
        kind=TransitionKind.TRANSITION_KIND_REACHED,
        level=level,
        gauge=gauge,
        event_id="e1",
        notified=notified,
    )


def body(level: str = "10", **changes: Any) -> bytes:
    data = {
        "alert_name": "spend",
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
    return Received("ntf_1", b"", tuple(crossings_of_body(body(level))), sequence, 0.0)


def happened(
    *,
    answer: EvaluateUsageResponse | None = None,
    arrived: tuple[Received, ...] = (received(),),
    faults: tuple[str, ...] = (),
) -> tuple[bool, str]:
    """The verdict and the page on one event that crosses one line."""
    books = ledger()
    event = books.sending(Sent(EVENT))
    books.acknowledge(
        Batch("b", [usage_event(event)]), answer or EvaluateUsageResponse(accepted=1, transitions=[transition()])
    )
    receiver = Receiver(received={str(number): one for number, one in enumerate(arrived)}, faults=list(faults))
    stream = io.StringIO()
    right = report.reckon(Console(file=stream, width=150, theme=THEME), [PLAN], books, receiver)
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
        ({"faults": ("ntf_9 is not signed well",)}, "ntf_9 is not signed well"),
        ({"answer": EvaluateUsageResponse(accepted=1)}, "1 missing, 0 not expected"),
        ({"answer": EvaluateUsageResponse(duplicates=1, transitions=[transition()])}, "see the events above"),
        ({"answer": EvaluateUsageResponse(accepted=1, transitions=[transition(notified=False)])}, "1 missing"),
    ],
)
def test_anything_else_is_wrong_and_said(circumstances: dict[str, Any], words: str) -> None:
    right, page = happened(**circumstances)
    assert not right
    assert words in page


def test_a_rejection_counts_by_its_reason() -> None:
    books = ledger()
    event = books.sending(Sent(EVENT, "EVENT_INVALID"))
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason="ERROR_REASON_EVENT_INVALID"))
    answer = EvaluateUsageResponse(rejected=[Rejection(status=status_pb2.Status(details=[detail]))])
    books.acknowledge(Batch("b", [usage_event(event)]), answer)
    assert not books.answers_differ()
    assert books.rejected() == 1
    assert books.expectation.crossings == []


def test_a_further_check_decides_too() -> None:
    console = Console(file=io.StringIO(), theme=THEME)
    assert report.conclude(console, ledger(), Receiver(), [("counters", "")])
    assert not report.conclude(console, ledger(), Receiver(), [("counters", "2 are wrong")])


def test_a_body_gives_the_same_crossing_as_an_answer() -> None:
    (crossing,) = crossings_of_body(body("10.0"))
    assert crossing == Crossing(
        "spend", "acme", "", "USD", (), datetime(2026, 3, 1, tzinfo=UTC), "REACHED", "10", "e1"
    )


def test_a_body_that_leaves_transitions_out_is_refused() -> None:
    with pytest.raises(ValueError, match="3 transitions were left out"):
        crossings_of_body(body(omitted=3))


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 50), (0.99, 99), (1.0, 100)])
def test_percentiles(share: float, value: float) -> None:
    assert percentile(list(range(100, 0, -1)), share) == value


def test_latency_is_measured_or_said_not_to_be() -> None:
    assert "no latency" in report.latency_line(Probe())
    assert "p50 [number]20.0 ms[/]" in report.latency_line(Probe([0.01], [0.02]))
