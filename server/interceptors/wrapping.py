"""How an interceptor wraps a handler of any kind: unary or streaming, on either side."""

import abc
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import grpc

from server.calls.context import Context

# Interceptors pass messages on as they are.
if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
else:  # generic for the type checker only
    Handler = grpc.RpcMethodHandler
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]
# A coroutine function for one response, an asynchronous generator function for a stream of responses. A handler that
# calls `context.write` and does not yield cannot be wrapped; this service has none.
Behaviour = Callable[[Any, Context], Any]


@dataclasses.dataclass(frozen=True)
class ReadLater(Handler):
    """A handler that reads its one request itself: for gRPC its requests are a stream.

    gRPC calls a unary handler only after it has the whole request, and waits for that without a limit.
    """

    response_streaming: bool
    behaviour: Behaviour
    request_streaming: bool = True
    request_deserializer: None = None
    response_serializer: None = None
    unary_unary: None = None
    unary_stream: None = None

    @property
    def stream_unary(self) -> Any:  # type: ignore[override]
        """The function that gRPC calls when the answer is one message."""
        return None if self.response_streaming else self.behaviour

    @property
    def stream_stream(self) -> Any:  # type: ignore[override]
        """The function that gRPC calls when the answer is a stream."""
        return self.behaviour if self.response_streaming else None


class Around(grpc.aio.ServerInterceptor, abc.ABC):
    """An interceptor that runs code before and after a handler of any kind."""

    @abc.abstractmethod
    def around(self, method: str, streaming: bool, context: Context) -> AbstractAsyncContextManager[None]:
        """The code around a call of `method`; `streaming` when either side sends several messages."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Wraps the handler that the inner interceptors or the service provide."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        streaming = bool(
            handler.response_streaming or (handler.request_streaming and not isinstance(handler, ReadLater))
        )
        inner = behaviour_of(handler)

        # The handler of a stream is an asynchronous generator. A call of it runs nothing: its code runs, and raises,
        # during the iteration. So `around` has to surround the iteration.
        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            async with (
                self.around(method, streaming, context),
                aclosing(inner(request, context)) as responses,
            ):
                async for response in responses:
                    yield response
                    del response  # an idle stream would keep its last answer

        async def single(request: Any, context: Context) -> Any:
            async with self.around(method, streaming, context):
                return await inner(request, context)

        return rebuilt(
            handler,
            stream if handler.response_streaming else single,
            handler.request_deserializer,
            handler.response_serializer,
        )


class Before(abc.ABC):
    """Code before a handler. For what has to follow at the end of the call it registers a callback.

    A layer around a stream keeps 1 KiB of memory as long as the stream is open; this keeps what its callback needs.
    """

    @abc.abstractmethod
    def before(self, method: str, context: Context) -> None:
        """The code before a call of `method`."""


class Together(Around):
    """Several interceptors as one, the first one outermost.

    Every layer around a stream is an asynchronous generator, which costs time and an object for each answer.
    """

    def __init__(self, *interceptors: Around | Before) -> None:
        """The last one is an `Around`."""
        first = next(number for number, one in enumerate(interceptors) if isinstance(one, Around))
        *before, outer = interceptors[: first + 1]
        rest = interceptors[first + 1 :]
        self._before = tuple(one for one in before if isinstance(one, Before))
        self._outer = cast("Around", outer)
        self._inner = Together(*rest) if rest else None

    @asynccontextmanager
    async def around(self, method: str, streaming: bool, context: Context) -> AsyncIterator[None]:
        """The code of all of them around a call. The code of one sees what those before it have set."""
        for one in self._before:
            one.before(method, context)
        # No AsyncExitStack: when code after a call raises an exception, the frame and a traceback keep each other.
        async with self._outer.around(method, streaming, context):
            if self._inner is None:
                yield
            else:
                async with self._inner.around(method, streaming, context):
                    yield


def behaviour_of(handler: Handler) -> Behaviour:
    """The function that serves the calls of a handler."""
    for function in (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream):
        if function is not None:
            return cast("Behaviour", function)  # the stubs know only the synchronous API's handlers
    raise TypeError("the handler has no function")


def rebuilt(
    handler: Handler,
    behaviour: Behaviour,
    request_deserializer: Callable[[bytes], Any] | None,
    response_serializer: Callable[[Any], bytes] | None,
) -> Handler:
    """A handler of the same kind with another function."""
    if isinstance(handler, ReadLater):
        return dataclasses.replace(handler, behaviour=behaviour)
    make: Callable[..., Handler]
    match bool(handler.request_streaming), bool(handler.response_streaming):
        case False, False:
            make = grpc.unary_unary_rpc_method_handler
        case False, True:
            make = grpc.unary_stream_rpc_method_handler
        case True, False:
            make = grpc.stream_unary_rpc_method_handler
        case _:
            make = grpc.stream_stream_rpc_method_handler
    return make(behaviour, request_deserializer, response_serializer)
