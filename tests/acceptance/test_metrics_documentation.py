"""What is written about metrics holds for a real scrape: the page, the dashboards and the alert rules.

TIDEMARK_RECORD_METRICS=1 writes the tables of docs/metrics.md instead of comparing them.
"""

import asyncio
import json
import os
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.support.monitoring import deployed
from tests.support.monitoring.deployed import Query
from tests.support.monitoring.documentation import PAGE, PROCESSES, documented, with_tables
from tests.support.monitoring.promql import read
from tests.support.monitoring.scraping import Scraped, scrape
from tests.support.processes.up import TIMEOUT, Up
from tests.support.server.certificates import Authority

RECORD = bool(os.environ.get("TIDEMARK_RECORD_METRICS"))
# What a scrape shows once the calls below have ended and each process has read the backlog.
SHOWN_LAST: tuple[tuple[str, dict[str, str]], ...] = (
    ("tidemark_organization_calls_total", {}),
    ("tidemark_outbox_notifications", {"process": "notifier"}),
    ("tidemark_outbox_notifications", {"worker": "1"}),
    ("tidemark_outbox_notifications", {"worker": "2"}),
    ("tidemark_embedded_database_size_bytes", {}),
    ("tidemark_keys_expiring", {"worker": "1"}),
    ("tidemark_keys_expiring", {"worker": "2"}),
)
# Labels that Prometheus adds to each series, and its own series about the scrape.
OF_PROMETHEUS = {"job", "instance", "le", *PROCESSES}
NAMES_OF_PROMETHEUS = {"up", "ALERTS"}


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    """The scrape of `tidemark up` with TLS, an embedded database and two workers, after some calls."""
    folder, authority = tmp_path_factory.mktemp("up"), Authority()
    certificate, key, authority_file = (folder / name for name in ("tls.crt", "tls.key", "ca.crt"))
    authority.server().write(certificate, key)
    authority_file.write_bytes(authority.pem)
    up = Up(
        folder,
        "--workers",
        "2",
        "--metrics-listen",
        "127.0.0.1:0",
        authority=str(authority_file),
        TIDEMARK_TLS_CERTIFICATE=str(certificate),
        TIDEMARK_TLS_KEY=str(key),
    )
    try:
        port = int(up.wait_for(r"http://127\.0\.0\.1:(\d+)/metrics").group(1))
        event = {
            "event_id": "1",
            "customer_id": "acme",
            "metric_id": "calls",
            "quantity": "1",
            "event_time": datetime.now(UTC).isoformat(),
        }
        up.call("AlertService/EvaluateUsageBatch", json.dumps({"batch": {"events": [event]}}))
        yield _complete(port)
    finally:
        up.stop()


def _complete(port: int) -> Scraped:
    end = time.monotonic() + TIMEOUT
    while True:
        found = asyncio.run(scrape(port))
        missing = [(name, labels) for name, labels in SHOWN_LAST if not found.has(name, **labels)]
        if not missing:
            return found
        assert time.monotonic() < end, missing
        time.sleep(0.2)


def test_the_page_has_every_metric_of_a_scrape(scraped: Scraped) -> None:
    page = PAGE.read_text()
    made = with_tables(page, documented(scraped))
    if RECORD:
        PAGE.write_text(made)
    assert page == made, "run with TIDEMARK_RECORD_METRICS=1"


def test_every_query_reads_metrics_and_labels_of_a_scrape(scraped: Scraped) -> None:
    queries = deployed.queries()
    assert len(queries) > 100
    assert [problem for query in queries for problem in problems(query, scraped)] == []


def test_a_query_of_what_no_process_shows_is_found(scraped: Scraped) -> None:
    assert list(problems(Query("one", "up"), scraped)) == []
    for expression in (
        "tidemark_redy",
        'tidemark_ready{customer="a"}',
        "sum by (gate) (tidemark_ready)",
        "rpc_server_call_duration_seconds",
    ):
        assert len(list(problems(Query("one", expression), scraped))) == 1, expression
    assert list(problems(Query("one", "tidemark_ready", ["{{ $labels.gate }}"]), scraped)) != []


def problems(query: Query, scraped: Scraped) -> Iterator[str]:
    """What a query reads or shows, and the scrape does not have."""
    found = read(query.expression)
    labels = set(OF_PROMETHEUS)
    for selector in found.selectors:
        if selector.name in NAMES_OF_PROMETHEUS:
            continue
        own = {label for one in scraped.samples if one.name == selector.name for label in one.labels}
        if selector.name not in scraped.names:
            yield f"{query}: no process shows {selector.name}"
        elif not set(selector.labels) <= own | OF_PROMETHEUS:
            yield f"{query}: {selector.name} has no labels {set(selector.labels) - own}"
        labels |= own
    shown = {label for template in query.templates for label in re.findall(r"\$labels\.(\w+)", template)}
    if not {*found.grouped_by, *shown} <= labels:
        yield f"{query}: no series has the labels {({*found.grouped_by} | shown) - labels}"
