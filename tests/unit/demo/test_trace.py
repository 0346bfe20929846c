"""The demo's real input: reading a trace, its events, its sums."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from demo import trace

NOW = datetime(2026, 11, 21, 21, 30, tzinfo=UTC)
HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
ROWS = "".join(
    f"2023-11-16 18:{15 + number // 4}:46.680590{number % 10},{374 + number},{number}\n" for number in range(80)
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(HEAD + ROWS)
    return path


def test_the_requests_move_by_whole_days_to_the_latest_past(path: Path) -> None:
    read = trace.read(path, NOW)
    assert len(read.requests) == 80
    first, last = read.requests[0].time, read.requests[-1].time
    assert first == datetime(2023, 11, 16, 18, 15, 46, 680590, tzinfo=UTC) + timedelta(days=read.shift_days)
    assert NOW - timedelta(days=1) < last <= NOW


def test_a_row_is_two_events_with_an_exact_cost(path: Path) -> None:
    found = list(trace.events(trace.read(path, NOW)))
    assert len(found) == 160
    assert len({event.event_id for event in found}) == 160
    tokens_in, tokens_out = found[2], found[3]
    assert (tokens_in.metric, tokens_in.quantity, tokens_in.cost) == ("tokens_in", "375", "0.0009375")
    assert (tokens_out.metric, tokens_out.quantity, tokens_out.cost) == ("tokens_out", "1", "0.00001")
    assert tokens_in.customer == tokens_out.customer


def test_the_customer_of_a_row_is_the_same_everywhere(path: Path) -> None:
    customers = [trace.customer_of(request) for request in trace.read(path, NOW).requests]
    assert customers[:4] == ["customer-16", "customer-33", "customer-06", "customer-12"]
    assert len(set(customers)) > 20


def test_the_sums_are_those_of_the_file(path: Path) -> None:
    read = trace.read(path, NOW)
    totals: Counter[str] = Counter()
    for (_, measured, _), value in trace.sums(read).items():
        totals[measured] += value  # type: ignore[assignment]
    tokens_in, tokens_out = sum(range(374, 454)), sum(range(80))
    assert totals["tokens_in"] == tokens_in
    assert totals["tokens_out"] == tokens_out
    assert totals["USD"] == tokens_in * Decimal("0.0000025") + tokens_out * Decimal("0.00001")


def test_the_middle_divides_the_requests(path: Path) -> None:
    read = trace.read(path, NOW)
    before = sum(request.time < read.middle for request in read.requests)
    assert 0 < before < len(read.requests)
    assert read.middle.second == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("time,in,out\n1,2,3\n", "the first line"),
        (HEAD, "holds no requests"),
        (HEAD + "2023-11-16 18:15:46,1\n", "line 2"),
        (HEAD + "2023-11-16 18:15:46,1,2\nyesterday,1,2\n", "line 3"),
        (HEAD + "2023-11-16 18:15:46,1,1.5\n", "line 2"),
    ],
)
def test_another_file_is_refused_with_its_line(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(content)
    with pytest.raises(trace.BadTrace, match=words):
        trace.read(path, NOW)
