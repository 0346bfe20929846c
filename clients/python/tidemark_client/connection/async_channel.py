"""A channel of asyncio whose calls carry the API key, have a deadline, and raise the exceptions of this package."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Generator
from typing import Any, TypeVar

import grpc

from tidemark_client.connection.sync_channel import timeout_of
from tidemark_client.connection.target import Target
from tidemark_client.errors.exceptions import error_of_call

_Result = TypeVar("_Result")


class AsyncChannel:
    """What stubs need of a channel. A timeout of `math.inf` is none; None is that of the target, for unary calls."""

    def __init__(self, channel: grpc.aio.Channel, target: Target) -> None:
        self._channel = channel
        self._target = target

    def unary_unary(self, *arguments: Any, **options: Any) -> _Method:
        """A method with one request and one answer."""
        return _Method(self._channel.unary_unary(*arguments, **options), self._target, self._target.timeout)

    def stream_unary(self, *arguments: Any, **options: Any) -> _Method:
        """A method with many requests and one answer."""
        return _Method(self._channel.stream_unary(*arguments, **options), self._target, math.inf)

    def unary_stream(self, *arguments: Any, **options: Any) -> _Method:
        """A method with one request and many answers."""
        return _Method(self._channel.unary_stream(*arguments, **options), self._target, math.inf)

    def stream_stream(self, *arguments: Any, **options: Any) -> _Method:
        """A method with many requests and many answers."""
        return _Method(self._channel.stream_stream(*arguments, **options), self._target, math.inf)


class _Method:
    """A method, in the form of gRPC's multi-callables. timeout: seconds, where a call has none of its own."""

    def __init__(self, method: Any, target: Target, timeout: float) -> None:
        self._method = method
        self._metadata = target.call_metadata
        self._timeout = timeout

    def __call__(
        self, request: Any = None, timeout: float | None = None, metadata: Any = None, **options: Any
    ) -> _Call:
        given = () if request is None else (request,)
        call = self._method(
            *given,
            timeout=timeout_of(timeout, self._timeout),
            metadata=(*self._metadata, *(metadata or ())),
            **options,
        )
        return _Call(call)


class _Call:
    """A call; what is not here is that of gRPC's call, such as `cancel`."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            return (yield from self._call.__await__())
        except grpc.RpcError as error:
            raise error_of_call(error) from error

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._answers()

    async def _answers(self) -> AsyncIterator[Any]:
        try:
            async for answer in self._call:
                yield answer
        except grpc.RpcError as error:
            raise error_of_call(error) from error

    async def read(self) -> Any:
        """The next answer, or `grpc.aio.EOF`."""
        return await _translated(self._call.read())

    async def write(self, request: Any) -> None:
        """Sends one more request."""
        await _translated(self._call.write(request))

    async def done_writing(self) -> None:
        """Says that no request follows."""
        await _translated(self._call.done_writing())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


async def _translated(work: Awaitable[_Result]) -> _Result:
    try:
        return await work
    except grpc.RpcError as error:
        raise error_of_call(error) from error
