"""The channel of commands that call one method after the other. All that they need of the client library is here."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor

from cli.client.connection import UNARY_TIMEOUT, Address
from runtime.configuration import DEFAULT_MAX_MESSAGE_BYTES

__all__ = ["UNARY_TIMEOUT", "Address", "Caller", "caller"]

_OPTIONS = (
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 4 * DEFAULT_MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.enable_retries", 1),
)


class Caller:
    """Calls methods of a server. Every method raises grpc.RpcError."""

    def __init__(self, channel: grpc.Channel, address: Address) -> None:
        self._channel = channel
        self.address = address

    def call(self, method: MethodDescriptor, request: Any, timeout: float = UNARY_TIMEOUT) -> Any:
        """The answer of a method. timeout: seconds."""
        stub = self._channel.unary_unary(_path(method), _bytes, _reader(method))
        return stub(request, timeout=timeout, metadata=self.address.metadata)

    def trailing_metadata(self, method: MethodDescriptor, request: Any) -> dict[str, str | bytes]:
        """What comes with the status of a method that succeeds."""
        stub = self._channel.unary_unary(_path(method), _bytes, _reader(method))
        _, call = stub.with_call(request, timeout=UNARY_TIMEOUT, metadata=self.address.metadata)
        return dict(call.trailing_metadata() or ())

    def stream(self, method: MethodDescriptor, request: Any) -> Any:
        """The answers of a method that streams them, as they come: an iterator, and a grpc.Call to cancel."""
        stub = self._channel.unary_stream(_path(method), _bytes, _reader(method))
        return stub(request, metadata=self.address.metadata)


@contextmanager
def caller(address: Address) -> Iterator[Caller]:
    """A Caller, whose channel is open within the block."""
    if address.tls is None:
        channel = grpc.insecure_channel(address.server, options=_OPTIONS)
    else:
        tls = address.tls
        credentials = grpc.ssl_channel_credentials(tls.authorities, tls.key, tls.certificate)
        channel = grpc.secure_channel(address.server, credentials, options=_OPTIONS)
    with channel:
        yield Caller(channel, address)


def _path(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def _bytes(request: Any) -> bytes:
    data: bytes = request.SerializeToString()
    return data


def _reader(method: MethodDescriptor) -> Any:
    return message_factory.GetMessageClass(method.output_type).FromString
