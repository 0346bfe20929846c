"""The cause of a failed call: status, reason, and the delay that the server asks for."""

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from cli.client.errors import (
    DETAILS_KEY,
    complete_status,
    error_message,
    error_reason,
    error_status,
    retry_delay,
)


def failed_call(*details: Message, message: str = "") -> grpc.aio.AioRpcError:
    """A failed call; its trailing metadata has a status if there are details."""
    trailing = grpc.aio.Metadata()
    if details:
        packed = [any_pb2.Any() for _ in details]
        for one, detail in zip(packed, details, strict=True):
            one.Pack(detail)
        status = status_pb2.Status(code=14, message="busy", details=packed)
        trailing.add(DETAILS_KEY, status.SerializeToString())
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), trailing, message)


def test_call_without_a_status_has_no_reason_and_no_delay() -> None:
    error = failed_call()
    assert error_status(error) == status_pb2.Status()
    assert (error_reason(error), retry_delay(error), error_message(error)) == ("", None, "UNAVAILABLE")


def test_reason_and_delay_are_read_from_the_details() -> None:
    retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=2, nanos=500_000_000))
    error = failed_call(error_details_pb2.ErrorInfo(reason="ERROR_REASON_OVERLOADED"), retry, message="busy")
    assert (error_reason(error), retry_delay(error), error_message(error)) == ("ERROR_REASON_OVERLOADED", 2.5, "busy")


def test_complete_status_is_made_of_code_and_message_when_the_call_has_none() -> None:
    assert complete_status(failed_call(message="gone")) == status_pb2.Status(code=14, message="gone")
    assert complete_status(failed_call(error_details_pb2.RetryInfo())).message == "busy"
