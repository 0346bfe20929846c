"""The pure parts of the part `peers`: files of events, what a crash lost, and the results."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.peers import loads
from bench.peers.definitions import TIDEMARK
from bench.peers.measuring import Loss, Measurement, differences
from bench.peers.report import Report
from bench.peers.task import Event, batches, read_events, write_events
from bench.support import load
from bench.support.load import Load

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def test_a_file_of_events_returns_them_unchanged(tmp_path: Path) -> None:
    events = [Event("a", "customer-1", 3, 1_772_323_200_000_001, 0.0), Event("b", "customer-2", 1, 5, 0.25)]
    write_events(tmp_path / "events", events)
    assert read_events(str(tmp_path / "events")) == events


def test_batches_have_all_events_in_order() -> None:
    events = loads.units(Load("it", 3, 5, NOW))
    assert [len(batch) for batch in batches(events, 2)] == [2, 2, 1]
    assert [event for batch in batches(events, 2) for event in batch] == events


def test_units_sum_up_to_the_number_of_events() -> None:
    assert sum(event.quantity for event in loads.units(Load("it", 3, 100, NOW))) == 100


def test_paced_events_let_each_customer_reach_at_most_one_threshold() -> None:
    events = loads.paced(NOW)
    reaching = [event.customer_id for event in events if event.quantity >= load.STEP]
    assert len(reaching) == len(set(reaching)) > 100
    assert len({event.event_id for event in events}) == len(events)
    assert [event.due for event in events] == sorted(event.due for event in events)


@pytest.mark.parametrize(
    ("counted", "expected"),
    [
        ({"a": 3, "b": 2}, (0, 0)),
        ({"a": 3}, (2, 0)),
        ({}, (5, 0)),
        ({"a": 4, "b": 2}, (0, 1)),
        ({"a": 1, "b": 3, "c": 1}, (2, 2)),
    ],
)
def test_differences_count_lost_events_and_those_counted_twice(
    counted: dict[str, int], expected: tuple[int, int]
) -> None:
    assert differences({"a": 3, "b": 2}, counted) == expected


def measurement(rate: float, *, lost: int = 0) -> Measurement:
    return Measurement({"dense": rate, "sparse": rate / 2}, [0.001, 0.002], 0, Loss(100, lost, 0))


def test_the_fastest_peer_is_one_that_loses_nothing() -> None:
    found = Report(
        {
            TIDEMARK: measurement(100_000),
            "one_transaction": measurement(5_000),
            "polling": measurement(40_000),
            "redis": measurement(200_000, lost=50),
            "redis_everysec": measurement(150_000),  # lost nothing by chance
        },
        {"bytewax": "no wheel"},
    ).figures()
    assert found["fastest_durable_to_tidemark"] == {"dense": 0.4, "sparse": 0.4}
    assert found["peers"]["redis"]["to_tidemark"] == {"dense": 2.0, "sparse": 2.0}
    assert found["unavailable"] == {"bytewax": "no wheel"}


def test_the_table_has_a_row_for_each_peer_that_was_measured() -> None:
    table = Report({TIDEMARK: measurement(1_000), "redis": measurement(500, lost=7)}, {}).table()
    assert [*table.columns[0].cells] == ["Tidemark", "Redis script, as installed"]
    assert [*table.columns[6].cells] == ["0 of 100", "7 of 100"]
