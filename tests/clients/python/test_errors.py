"""The exceptions of failed calls: their class, what they carry, and their sentence."""

import pickle

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from tidemark_client import InvalidArgument, ResourceExhausted, TidemarkError, Unknown
from tidemark_client.errors import error_of_call, error_of_status, error_status
from tidemark_client.errors.exceptions import _CLASSES
from tidemark_client.errors.status import DETAILS_KEY, REQUEST_ID_KEY


def status(code: grpc.StatusCode, message: str, *details: Message) -> status_pb2.Status:
    packed = [any_pb2.Any() for _ in details]
    for one, detail in zip(packed, details, strict=True):
        one.Pack(detail)
    return status_pb2.Status(code=code.value[0], message=message, details=packed)


def failed_call(code: grpc.StatusCode, message: str, *details: Message) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata((REQUEST_ID_KEY, "r-1"))
    if details:
        trailing.add(DETAILS_KEY, status(code, message, *details).SerializeToString())
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, message)


BAD = error_details_pb2.BadRequest(
    field_violations=[
        error_details_pb2.BadRequest.FieldViolation(field="alert.scope", description="is missing"),
        error_details_pb2.BadRequest.FieldViolation(field="alert.thresholds", description="are 21, at most 20"),
    ]
)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_code_has_an_exception_of_its_own(code: grpc.StatusCode) -> None:
    error = error_of_call(failed_call(code, "no"))
    assert type(error) is _CLASSES[code]
    assert isinstance(error, TidemarkError)
    assert isinstance(error, grpc.RpcError)
    assert (error.code(), error.details(), error.request_id) == (code, "no", "r-1")
    assert len(set(_CLASSES.values())) == len(_CLASSES)


def test_details_become_attributes_and_a_sentence() -> None:
    info = error_details_pb2.ErrorInfo(reason="ERROR_REASON_INVALID_FIELD", metadata={"field": "alert.scope"})
    error = error_of_call(failed_call(grpc.StatusCode.INVALID_ARGUMENT, "alert.scope: is missing", info, BAD))
    assert isinstance(error, InvalidArgument)
    assert (error.reason, dict(error.metadata)) == ("INVALID_FIELD", {"field": "alert.scope"})
    assert [one.field for one in error.violations] == ["alert.scope", "alert.thresholds"]
    assert error.retry_after is None
    assert str(error) == (
        "alert.scope: is missing; alert.thresholds: are 21, at most 20 [INVALID_FIELD] (request r-1)"
    )


def test_delay_is_in_seconds() -> None:
    retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=2, nanos=500_000_000))
    error = error_of_call(failed_call(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", retry))
    assert isinstance(error, ResourceExhausted)
    assert error.retry_after == 2.5


def test_status_within_an_answer_becomes_the_same_exception() -> None:
    error = error_of_status(status(grpc.StatusCode.INVALID_ARGUMENT, "no", BAD))
    assert isinstance(error, InvalidArgument)
    assert len(error.violations) == 2
    assert error.request_id == ""
    assert type(error_of_status(status_pb2.Status(code=4711, message="new"))) is Unknown


def test_details_that_cannot_be_read_leave_code_and_message() -> None:
    trailing = grpc.aio.Metadata((DETAILS_KEY, b"\xff\xff"))
    call = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), trailing, "by a proxy")
    error = error_of_call(call)
    assert (error.code(), str(error), error.reason) == (
        grpc.StatusCode.UNAVAILABLE,
        "by a proxy [UNAVAILABLE]",
        "",
    )
    assert error_status(call) == status_pb2.Status(code=14, message="by a proxy")
    broken = any_pb2.Any(type_url="type.googleapis.com/google.rpc.BadRequest", value=b"\xff\xff")
    assert error_of_status(status_pb2.Status(code=3, message="no", details=[broken])).violations == ()


def test_error_without_a_status_is_unknown() -> None:
    assert type(error_of_call(grpc.RpcError("closed"))) is Unknown


def test_exception_survives_pickling() -> None:
    error = error_of_call(failed_call(grpc.StatusCode.INVALID_ARGUMENT, "no", BAD))
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.violations) == (type(error), str(error), error.violations)
