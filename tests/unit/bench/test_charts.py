"""Charts from results as the benchmark writes them, and results that do not exist."""

from typing import Any

import pytest

from bench.batches import CASES, Round
from bench.batches import Report as Batches
from bench.latency import Latencies
from bench.latency import Report as Latency
from bench.peers.definitions import TIDEMARK
from bench.peers.measuring import Loss, Measurement
from bench.peers.report import Report as Peers
from bench.plots import charts
from bench.plots.charts import Missing, Read
from bench.sustained import Report as Sustained
from bench.sustained import Row

INGEST = {
    "dense": {"events_per_second": 100_000.0, "copy_limit_events_per_second": 200_000.0, "ratio": 0.5},
    "sparse": {"events_per_second": 60_000.0, "copy_limit_events_per_second": 200_000.0, "ratio": 0.3},
}


def reading(**results: Any) -> Read:
    def read(part: str) -> Any:
        if part not in results:
            raise Missing(part)
        return results[part]

    return read


def test_ingest_has_a_line_for_each_kind_of_streams_and_workers() -> None:
    rounds = {case: [Round(case.batch * 10.0, 5.0)] for case in CASES}
    batches, copy = charts.ingest(reading(batches=Batches(rounds).figures(), ingest=INGEST)).panels
    assert batches.places == ["1", "10", "100", "1,000"]
    assert {series.name for series in batches.series} == {
        "dense, 8 streams",
        "dense, 8 streams, 2 workers",
        "dense, 1 stream",
        "sparse, 8 streams",
        "sparse, 8 streams, 2 workers",
    }
    assert all(series.values == [10, 100, 1_000, 10_000] for series in batches.series)
    assert copy.places == ["dense\n0.50 of COPY", "sparse\n0.30 of COPY"]
    assert [series.values for series in copy.series] == [[100_000, 60_000], [200_000, 200_000]]


def test_latency_leaves_out_a_percentile_that_has_too_few_samples() -> None:
    results = Latency([Latencies(100, [0.005] * 1_000, [0.02] * 300)], [0.002]).figures()
    ack, webhook = charts.latency(reading(latency=results)).panels
    assert [series.values for series in ack.series] == [[5], [5], [5]]
    assert [series.values for series in webhook.series] == [[20], [20], [None]]


def test_sustained_has_a_point_for_each_row() -> None:
    rows = [Row(stored, 500, 50_000.0, 8.0, 6.0, 280.0, 134.0, 40.0) for stored in (0, 1_000_000, 2_000_000)]
    rate, cpu = charts.sustained(reading(sustained=Sustained(rows).figures())).panels
    assert rate.places == [0, 1, 2]
    assert [series.values for series in rate.series] == [[50_000, 50_000, 50_000]]
    assert [series.name for series in cpu.series] == ["server", "PostgreSQL"]


def test_peers_are_marked_when_a_crash_may_lose_events() -> None:
    found = Peers(
        {
            TIDEMARK: Measurement({"dense": 9.0, "sparse": 5.0}, [0.002], 0, Loss(100, 0, 0)),
            "redis": Measurement({"dense": 7.0, "sparse": 7.0}, [0.001], 0, Loss(100, 100, 0)),
            "redis_everysec": Measurement({"dense": 3.0, "sparse": 3.0}, [0.5], 0, Loss(100, 3, 0)),
            "bytewax": Measurement({"dense": 2.0, "sparse": 3.0}, [0.5], 0, Loss(100, 0, 0)),
        },
        {},
    ).figures()
    rates, _ = charts.peers(reading(peers=found)).panels
    assert [str(place).splitlines()[1] for place in rates.places] == [
        "kill -9 lost nothing in this run",
        "kill -9 lost 3 of 100",
        "kill -9 lost all",
        "kill -9 lost nothing",
    ]
    assert rates.marked == [0, 1, 2]
    assert rates.own == 3


@pytest.mark.parametrize("chart", charts.CHARTS)
def test_a_chart_is_missing_when_its_results_are(chart: Any) -> None:
    with pytest.raises(Missing):
        chart(reading())
