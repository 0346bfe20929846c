"""The metrics of a process: read at the scrape; one that cannot be read does not take the others with it."""

import logging

import pytest

from runtime.monitoring.exposition import exposition
from runtime.monitoring.instruments import Instruments
from tests.support.monitoring.scraping import OPENMETRICS, Scraped, read


async def scraped(instruments: Instruments, accept: str = "") -> Scraped:
    found = await exposition(instruments.registry, accept)
    return read(found.body.decode(), openmetrics=found.is_openmetrics)


async def test_values_are_read_at_each_scrape() -> None:
    instruments, values = Instruments(), [1.0]
    instruments.gauge("open", "What is open.", lambda: values[0])
    instruments.counter("made_total", "What was made.", lambda: {("a",): values[0], ("b",): 0}, labels=("kind",))
    assert (await scraped(instruments)).value("open") == 1.0
    values[0] = 5.0
    found = await scraped(instruments, OPENMETRICS)
    assert found.value("open") == 5.0
    assert found.values("made_total") == {(("kind", "a"),): 5.0, (("kind", "b"),): 0.0}


async def test_a_value_that_cannot_be_read_is_left_out_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    instruments = Instruments()

    def broken() -> float:
        raise RuntimeError("no value")

    instruments.gauge("first", "One before it.", lambda: 1.0)
    instruments.gauge("broken", "One that fails.", broken)
    instruments.gauge("last", "One after it.", lambda: 2.0)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert (await scraped(instruments)).names == {"first", "last"}
    assert len(caplog.records) == 1


async def test_a_value_that_is_unknown_is_left_out() -> None:
    instruments = Instruments()
    instruments.gauge("unknown", "It is not known.", lambda: None)
    assert (await scraped(instruments)).names == set()


async def test_histograms_have_no_series_with_the_time_of_their_creation() -> None:
    instruments = Instruments()
    instruments.histogram("duration_seconds", "How long.", (1.0,)).observe(0.5)
    assert (await scraped(instruments)).names == {
        "duration_seconds_bucket",
        "duration_seconds_count",
        "duration_seconds_sum",
    }


async def test_exemplars_are_in_the_openmetrics_format_only() -> None:
    instruments = Instruments()
    instruments.histogram("duration_seconds", "How long.", (1.0,)).observe(0.5, {"trace_id": "f" * 32})
    assert [one.exemplar for one in (await scraped(instruments)).samples if one.exemplar] == []
    exemplars = [one.exemplar for one in (await scraped(instruments, OPENMETRICS)).samples if one.exemplar]
    assert [one.labels for one in exemplars] == [{"trace_id": "f" * 32}]
