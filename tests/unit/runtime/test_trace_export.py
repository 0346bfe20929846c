"""Tracing is switched on by the OTEL_* variables, and a configuration that cannot be used only leaves it off."""

import sys

import pytest

from runtime.trace_export import exported_traces
from runtime.tracing import spans

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}


def is_on(environment: dict[str, str]) -> bool:
    """Whether traces are recorded with these variables; they are off again afterwards."""
    with exported_traces("tidemark-server", environment):
        on = spans.are_recorded()
    assert not spans.are_recorded()
    return on


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_SERVICE_NAME": "billing"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {**ENDPOINT, "OTEL_SDK_DISABLED": "TRUE"},
        {**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_traces_are_off_without_a_receiver_or_by_a_variable(
    environment: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    assert not is_on(environment)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER is 'zipkin'"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "the protocol is 'http/protobuf'"),
    ],
)
def test_traces_stay_off_and_a_line_says_why_when_they_cannot_be_exported(
    more: dict[str, str], problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert not is_on({**ENDPOINT, **more})
    assert [record.getMessage() for record in caplog.records] == [
        f"traces are off: {problem}; only {'otlp' if 'zipkin' in problem else 'grpc'} is supported"
    ]


def test_traces_stay_off_and_a_line_names_the_extra_without_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    assert not is_on(ENDPOINT)
    assert "tidemark[tracing]" in caplog.text


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_traces_are_recorded_with_a_receiver_that_is_away(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    assert is_on({variable: "http://127.0.0.1:1"})
