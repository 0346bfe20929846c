"""A channel for threads whose calls carry the API key, have a deadline, and raise the exceptions of this package."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from tidemark_client.connection.target import Target
from tidemark_client.errors.exceptions import error_of_call


class SyncChannel:
    """What stubs need of a channel. A timeout of `math.inf` is none; None is that of the target, for unary calls."""

    def __init__(self, channel: grpc.Channel, target: Target) -> None:
        self._channel = channel
        self._target = target

    def unary_unary(self, *arguments: Any, **options: Any) -> _Unary:
        """A method with one request and one answer."""
        return _Unary(self._channel.unary_unary(*arguments, **options), self._target, self._target.timeout)

    def stream_unary(self, *arguments: Any, **options: Any) -> _Unary:
        """A method with many requests and one answer."""
        return _Unary(self._channel.stream_unary(*arguments, **options), self._target, math.inf)

    def unary_stream(self, *arguments: Any, **options: Any) -> _Stream:
        """A method with one request and many answers."""
        return _Stream(self._channel.unary_stream(*arguments, **options), self._target)

    def stream_stream(self, *arguments: Any, **options: Any) -> _Stream:
        """A method with many requests and many answers."""
        return _Stream(self._channel.stream_stream(*arguments, **options), self._target)


def timeout_of(given: float | None, default: float) -> float | None:
    """The timeout of a call in gRPC's sense, in which None is none."""
    timeout = default if given is None else given
    return None if math.isinf(timeout) else timeout


class _Unary:
    """A method with one answer, in the form of gRPC's multi-callables."""

    def __init__(self, method: Any, target: Target, timeout: float) -> None:
        self._method = method
        self._metadata = target.call_metadata
        self._timeout = timeout

    def __call__(self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        return self._translated(self._method, request, timeout, metadata, options)

    def with_call(self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        """The answer and the call, with its metadata."""
        return self._translated(self._method.with_call, request, timeout, metadata, options)

    def future(self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        """The call as a future of gRPC, which raises errors of gRPC."""
        return self._method.future(
            request,
            timeout=timeout_of(timeout, self._timeout),
            metadata=(*self._metadata, *(metadata or ())),
            **options,
        )

    def _translated(
        self, call: Callable[..., Any], request: Any, timeout: float | None, metadata: Any, options: dict[str, Any]
    ) -> Any:
        try:
            return call(
                request,
                timeout=timeout_of(timeout, self._timeout),
                metadata=(*self._metadata, *(metadata or ())),
                **options,
            )
        except grpc.RpcError as error:
            raise error_of_call(error) from error


class _Stream:
    """A method with many answers, in the form of gRPC's multi-callables."""

    def __init__(self, method: Any, target: Target) -> None:
        self._method = method
        self._metadata = target.call_metadata

    def __call__(self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> _Answers:
        call = self._method(
            request,
            timeout=timeout_of(timeout, math.inf),
            metadata=(*self._metadata, *(metadata or ())),
            **options,
        )
        return _Answers(call)


class _Answers:
    """The answers of a stream; everything else is that of gRPC's call, such as `cancel`."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._call)
        except grpc.RpcError as error:
            raise error_of_call(error) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)
