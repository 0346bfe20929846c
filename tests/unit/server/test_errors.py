"""Errors as statuses: codes, reasons, violations, and nothing internal."""

import logging
import re
from base64 import b64encode
from datetime import timedelta
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from generated.tidemark.v1 import error_reason_pb2
from server.calls import current_call, errors
from server.calls.errors import ApiError, FieldViolation
from store.postgres import failures
from store.postgres.database import DatabaseUnavailable

Detail = TypeVar("Detail", error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)


def detail(status: status_pb2.Status, kind: type[Detail]) -> Detail:
    """The one detail of that kind."""
    (message,) = [message for packed in status.details if packed.Unpack(message := kind())]
    return message


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.InvalidArgument, grpc.StatusCode.INVALID_ARGUMENT),
        (errors.NotFound, grpc.StatusCode.NOT_FOUND),
        (errors.AlreadyExists, grpc.StatusCode.ALREADY_EXISTS),
        (errors.FailedPrecondition, grpc.StatusCode.FAILED_PRECONDITION),
        (errors.Aborted, grpc.StatusCode.ABORTED),
        (errors.ResourceExhausted, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.Unavailable, grpc.StatusCode.UNAVAILABLE),
        (errors.DeadlineExceeded, grpc.StatusCode.DEADLINE_EXCEEDED),
        (errors.Unauthenticated, grpc.StatusCode.UNAUTHENTICATED),
        (errors.Unimplemented, grpc.StatusCode.UNIMPLEMENTED),
        (errors.Internal, grpc.StatusCode.INTERNAL),
    ],
)
def test_an_error_is_a_status_with_code_reason_and_metadata(kind: type[ApiError], code: grpc.StatusCode) -> None:
    error = kind(error_reason_pb2.ERROR_REASON_ALERT_NOT_FOUND, "no such alert", metadata={"alert_id": "alt_x"})
    status = error.status()
    assert (status.code, status.message) == (code.value[0], "no such alert")
    info = detail(status, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == ("ERROR_REASON_ALERT_NOT_FOUND", "tidemark.dev")
    assert dict(info.metadata) == {"alert_id": "alt_x"}
    assert len(status.details) == 1


def test_violations_and_retry_delay_are_details() -> None:
    error = errors.ResourceExhausted(
        error_reason_pb2.ERROR_REASON_OVERLOADED,
        "busy",
        violations=[FieldViolation("events[3].quantity", "not a decimal")],
        retry_after=timedelta(milliseconds=250),
    )
    status = error.status()
    (violation,) = detail(status, error_details_pb2.BadRequest).field_violations
    assert (violation.field, violation.description) == ("events[3].quantity", "not a decimal")
    retry = detail(status, error_details_pb2.RetryInfo)
    assert retry.retry_delay.nanos == 250_000_000


def test_a_status_fits_into_the_metadata_that_clients_accept() -> None:
    error = errors.InvalidArgument(
        error_reason_pb2.ERROR_REASON_INVALID_FIELD,
        "😀" * 5000,
        metadata={f"subscription_id_{number}": "é" * 5000 for number in range(4)},
        violations=[FieldViolation(f"field_{number}" * 100, "ü" * 1000) for number in range(1000)],
        retry_after=timedelta(seconds=1.5),
    )
    # grpc-status-details-bin is base64; grpc-message is percent-encoded. HTTP/2 counts 32 bytes more for each entry.
    entries = {
        "grpc-status": "13",
        "grpc-message": quote(error.message),
        "grpc-status-details-bin": b64encode(error.status().SerializeToString()).decode(),
        "x-request-id": "r" * 128,
    }
    assert sum(len(name) + len(value) + 32 for name, value in entries.items()) < 8192
    *shown, rest = detail(error.status(), error_details_pb2.BadRequest).field_violations
    assert rest.description == f"and {1000 - len(shown)} more violations"


def test_all_violations_of_a_usual_request_are_shown() -> None:
    violations = [FieldViolation(f"alert.thresholds[{number}].value", "it is required") for number in range(20)]
    error = errors.InvalidArgument(error_reason_pb2.ERROR_REASON_INVALID_FIELD, "bad", violations=violations)
    shown = [
        FieldViolation(item.field, item.description)
        for item in detail(error.status(), error_details_pb2.BadRequest).field_violations
    ]
    assert shown == violations


def test_an_error_of_the_api_is_mapped_to_itself() -> None:
    error = errors.NotFound(error_reason_pb2.ERROR_REASON_ALERT_NOT_FOUND, "no")
    assert errors.mapped(error) is error


def test_a_lost_database_is_unavailable_with_a_retry_delay(caplog: pytest.LogCaptureFixture) -> None:
    mapped = errors.mapped(DatabaseUnavailable("password authentication failed for host 10.1.2.3"))
    assert (mapped.code, mapped.reason) == (
        grpc.StatusCode.UNAVAILABLE,
        error_reason_pb2.ERROR_REASON_DATABASE_UNAVAILABLE,
    )
    assert mapped.retry_after is not None
    assert "10.1.2.3" not in str(mapped.status())
    assert "10.1.2.3" in caplog.text


@pytest.mark.parametrize(
    "failure",
    [value for value in vars(failures).values() if isinstance(value, failures.Failure)],
    ids=lambda failure: str(failure.kind),
)
def test_each_failure_of_the_database_is_unavailable_by_its_name(failure: failures.Failure) -> None:
    mapped = errors.mapped(failures.unavailable(failure))
    assert (mapped.code, mapped.reason) == (
        grpc.StatusCode.UNAVAILABLE,
        error_reason_pb2.ERROR_REASON_DATABASE_UNAVAILABLE,
    )
    assert mapped.metadata == {"failure": failure.kind}
    assert mapped.retry_after == failure.retry_after > timedelta(0)
    # The contract names each of these reasons.
    contract = (Path(__file__).parents[3] / "proto/tidemark/v1/error_reason.proto").read_text()
    assert re.search(rf"\b{failure.kind}\b", contract)


def test_any_other_exception_is_internal_and_shows_only_the_request_id(caplog: pytest.LogCaptureFixture) -> None:
    current_call.begin(current_call.Call("/tidemark.v1.AlertService/GetAlert", "req-7"))
    with caplog.at_level(logging.ERROR):
        mapped = errors.mapped(ValueError("secret detail"))
    assert (mapped.code, mapped.reason) == (grpc.StatusCode.INTERNAL, error_reason_pb2.ERROR_REASON_INTERNAL)
    assert "secret" not in str(mapped.status())
    assert detail(mapped.status(), error_details_pb2.ErrorInfo).metadata["request_id"] == "req-7"
    assert "req-7" in mapped.message
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "secret detail" in str(record.exc_info[1])
