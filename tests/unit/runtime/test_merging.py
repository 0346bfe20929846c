"""The merge of scrapes: each family once, and every series with the label of its process."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

from runtime.monitoring.merging import Scrape, label_of, merged
from tests.support.monitoring.scraping import OPENMETRICS, read


def registry(value: float) -> CollectorRegistry:
    found = CollectorRegistry()
    Counter("made", "What was made.", registry=found).inc(value)
    Gauge("open", "What is open { and = so on }.", ["kind"], registry=found).labels('a "b" {c}').set(value)
    duration = Histogram("duration_seconds", "How long.", buckets=(1.0,), registry=found)
    duration.observe(0.5, {"trace_id": "f" * 32})
    return found


def text_of(metrics: CollectorRegistry, accept: str = "") -> str:
    encode, _ = choose_encoder(accept)
    return encode(metrics).decode()


def test_series_get_the_label_of_their_process() -> None:
    scrapes = [Scrape(text_of(registry(float(number))), label_of("worker", str(number))) for number in (1, 2)]
    found = read(merged(scrapes, is_openmetrics=False).decode())
    assert found.value("made_total", worker="1") == 1.0
    assert found.value("made_total", worker="2") == 2.0
    assert found.value("open", kind='a "b" {c}', worker="2") == 2.0
    assert found.value("duration_seconds_bucket", le="1.0") == 2.0


def test_families_are_together_and_end_once_in_openmetrics() -> None:
    scrapes = [
        Scrape(text_of(registry(float(number)), OPENMETRICS), label_of("worker", str(number))) for number in (1, 2)
    ]
    text = merged(scrapes, is_openmetrics=True).decode()
    assert text.count("# EOF\n") == 1
    assert text.endswith("# EOF\n")
    assert text.count("# TYPE made counter\n") == 1
    found = read(text, openmetrics=True)
    assert found.value("made_total") == 3.0
    assert [one.exemplar.labels for one in found.samples if one.exemplar] == [{"trace_id": "f" * 32}] * 2


def test_series_without_a_label_stay_as_they_are() -> None:
    text = text_of(registry(1.0))
    assert merged([Scrape(text, None)], is_openmetrics=False).decode() == text


def test_a_process_of_another_version_adds_its_own_families() -> None:
    own = CollectorRegistry()
    Counter("new", "Only the newer version has it.", registry=own).inc()
    scrapes = [
        Scrape(text_of(registry(1.0)), label_of("worker", "1")),
        Scrape(text_of(own), label_of("worker", "2")),
    ]
    found = read(merged(scrapes, is_openmetrics=False).decode())
    assert found.value("new_total", worker="2") == 1.0
    assert not found.has("made_total", worker="2")


def test_label_values_are_escaped() -> None:
    assert label_of("process", 'a"b\\c\nd') == r'process="a\"b\\c\nd"'
