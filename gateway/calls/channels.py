"""Calls to the server behind: its channels, and the deadlines of calls."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from gateway.calls import refusals
from gateway.calls.backend import Metadata
from gateway.transcoding.problems import Violation

_SECONDS = re.compile(r"\d{1,6}(\.\d{1,6})?", re.ASCII)
REQUEST_ID = "x-request-id"

_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.max_receive_message_length", -1),  # the server limits its answers
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # a connection for each channel
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.primary_user_agent", "tidemark-http"),
    # When the server has closed a connection because it was old, the next call opens one at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_metadata_size", 65_536),
]


def deadline_of(value: str | None) -> float | None:
    """The seconds in the header Request-Timeout; None without one. Raises Refusal."""
    if value is None:
        return None
    if not _SECONDS.fullmatch(value.strip()) or not (seconds := float(value)):
        raise refusals.invalid_fields([Violation("Request-Timeout", "write seconds, such as 2.5")])
    return seconds


class Channels:
    """The connections to the server: one for unary calls, and one for each so many streams.

    gRPC lets the calls above a connection's limit of streams wait without an end.
    """

    def __init__(self, target: str, streams_per_channel: int) -> None:
        self._target = target
        self._limit = streams_per_channel
        self._unary = self._open()
        self._streams: list[tuple[grpc.aio.Channel, int]] = []

    async def unary(self, rpc: str, request: bytes, metadata: Metadata, timeout: float | None) -> tuple[bytes, str]:
        """The answer of a unary call, and its request id. Raises Refusal."""
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._unary.unary_unary(rpc)
        call = method(request, metadata=metadata, timeout=timeout)
        try:
            answer = await call
            return answer, _request_id(await call.trailing_metadata())
        except grpc.aio.AioRpcError as error:
            raise with_request_id(refusals.of_call(error), error) from None

    @asynccontextmanager
    async def stream(
        self, rpc: str, request: bytes, metadata: Metadata, timeout: float | None
    ) -> AsyncIterator["grpc.aio.UnaryStreamCall[bytes, bytes]"]:
        """A call with a stream of answers, which is cancelled at the end of the block."""
        number = next((at for at, (_, count) in enumerate(self._streams) if count < self._limit), None)
        if number is None:
            number = len(self._streams)
            self._streams.append((self._open(), 0))
        self._count(number, 1)
        try:
            method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self._streams[number][0].unary_stream(rpc)
            call = method(request, metadata=metadata, timeout=timeout)
            try:
                yield call
            finally:
                call.cancel()
        finally:
            self._count(number, -1)

    async def close(self) -> None:
        """Closes the connections, and cancels what is open."""
        for channel in (self._unary, *(channel for channel, _ in self._streams)):
            await channel.close()

    def _count(self, number: int, change: int) -> None:
        channel, count = self._streams[number]
        self._streams[number] = (channel, count + change)

    def _open(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self._target, options=_OPTIONS)


def with_request_id(refusal: refusals.Refusal, error: grpc.aio.AioRpcError) -> refusals.Refusal:
    """The refusal with the request id of its call."""
    request_id = _request_id(error.trailing_metadata())
    return refusals.Refusal(
        refusal.status,
        refusal.http_code,
        {**refusal.headers, REQUEST_ID: request_id} if request_id else refusal.headers,
    )


def _request_id(metadata: Any) -> str:
    for key, value in metadata or ():
        if key == REQUEST_ID and isinstance(value, str):
            return value
    return ""
