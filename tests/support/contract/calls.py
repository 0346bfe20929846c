"""Calls of any method of the contract with requests and answers as JSON."""

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2

from tests.support.server.running import status_of

Json = dict[str, Any]


Metadata = Sequence[tuple[str, str]]


async def answers_of(
    channel: grpc.aio.Channel, method: MethodDescriptor, request: Json, count: int, metadata: Metadata = ()
) -> list[Json]:
    """The answer to a request; of a stream the first `count` answers."""
    message = ParseDict(request, GetMessageClass(method.input_type)())
    return [MessageToDict(each) for each in await send(channel, method, message, count, metadata)]


async def send(
    channel: grpc.aio.Channel, method: MethodDescriptor, request: Message, count: int = 1, metadata: Metadata = ()
) -> list[Message]:
    """The answer to a request; of a stream the first `count` answers."""
    opening: Any = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, True): channel.stream_stream,
    }[(method.client_streaming, method.server_streaming)]
    call = opening(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    if not method.server_streaming:
        return [await call(request, metadata=metadata)]
    sent = iter([request]) if method.client_streaming else request
    stream = call(sent, metadata=metadata)
    answers: list[Message] = [await stream.read() for _ in range(count)]
    stream.cancel()
    return answers


def error_json(error: grpc.aio.AioRpcError) -> Json:
    """What the examples show of an error: its code, reason and metadata, and the paths of bad fields."""
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    details = status_of(error).details
    assert any(detail.Unpack(info) for detail in details)
    found: Json = {"code": error.code().name, "reason": info.reason, "metadata": dict(sorted(info.metadata.items()))}
    if any(detail.Unpack(bad) for detail in details):
        found["fields"] = [violation.field for violation in bad.field_violations]
    return found
