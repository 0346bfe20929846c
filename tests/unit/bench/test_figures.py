"""Percentiles, summaries and prices of the benchmarks, on numbers that can be checked by hand."""

import pytest
from rich.table import Table

from bench.cost import Plan, price
from bench.latency import summary
from bench.report import markdown
from bench.support.figures import milliseconds

HUNDRED = [number / 1_000 for number in range(100, 0, -1)]  # 1 to 100 ms


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (0.999, 100), (1.0, 100), (0.001, 1)])
def test_milliseconds_returns_the_smallest_value_that_the_share_does_not_exceed(
    share: float, expected: float
) -> None:
    assert milliseconds(HUNDRED, share) == expected


def test_milliseconds_returns_the_value_of_a_single_sample() -> None:
    assert milliseconds([0.0042], 0.99) == 4.2


def test_summary_has_no_thousandth_when_fewer_samples_than_a_thousand_exist() -> None:
    assert summary(HUNDRED)["p99_9_ms"] is None


def test_summary_has_the_thousandth_of_a_thousand_samples() -> None:
    found = summary([0.001] * 998 + [0.005, 0.009])
    assert (found["p50_ms"], found["p99_ms"], found["p99_9_ms"], found["max_ms"]) == (1, 1, 5, 9)
    assert found["samples"] == 1_000


def test_price_adds_half_used_cores_and_the_disk_of_the_days() -> None:
    found = price(Plan(rate=1_000, days=10, core=20.0, gigabyte=0.5), cpu_us=25.0, disk_bytes=200.0)
    assert found.cores == pytest.approx(0.05)  # 1,000 × 25 µs, at half of a core
    assert found.gigabytes == pytest.approx(172.8)  # 864,000,000 events of 200 bytes
    assert found.total == pytest.approx(0.05 * 20 + 172.8 * 0.5)


def test_markdown_has_a_line_for_each_row_and_aligns_numbers() -> None:
    table = Table(title="latency, ms")
    table.add_column("benchmark")
    table.add_column("p50", justify="right")
    table.add_row("latency.ack", "5.0")
    assert markdown(table).splitlines() == [
        "latency, ms",
        "",
        "| benchmark | p50 |",
        "| --- | ---: |",
        "| latency.ack | 5.0 |",
    ]
