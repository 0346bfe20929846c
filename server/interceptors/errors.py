"""The innermost interceptor: nothing that a handler raises leaves the process as it is."""

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from generated.tidemark.v1 import error_reason_pb2
from server.calls import call as calls
from server.calls import errors
from server.calls.answers import CLIENT_LIMIT
from server.interceptors.around import Behaviour, Context, Continuation, Handler, behaviour_of, rebuilt
from store.postgres.retries import repeated

# Bytes of a request of health or reflection, which are names. They need no key, so nothing larger is decoded.
INFRASTRUCTURE_MESSAGE_BYTES = 1_024


class Errors(grpc.aio.ServerInterceptor):
    """Ends calls with a full google.rpc.Status for whatever went wrong.

    gRPC would answer an uncaught exception with UNKNOWN and its text. It decodes and encodes messages outside
    of the handler, where nothing catches; so the messages pass here as bytes, and this interceptor decodes,
    limits and encodes them.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self._limit = max_message_bytes

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Guards the handler, or stands in for one that does not exist."""
        handler = await continuation(handler_call_details)
        if handler is None:
            # Of this kind because it serves a call of any kind without waiting for its requests.
            return grpc.stream_unary_rpc_method_handler(_unknown_method(handler_call_details.method))
        limit = self._limit
        if calls.is_infrastructure(handler_call_details.method):
            limit = min(limit, INFRASTRUCTURE_MESSAGE_BYTES)
        decode = _Decoder(handler.request_deserializer, limit)
        encode = _Encoder(handler.response_serializer)
        inner = behaviour_of(handler)
        requests = decode.stream if handler.request_streaming else decode

        async def stream(request: Any, context: Context) -> AsyncIterator[bytes]:
            try:
                async with contextlib.aclosing(inner(requests(request), context)) as responses:
                    async for response in responses:
                        yield encode(response)
            # `Exception` on purpose: a cancellation has to pass, or gRPC leaks the call. AbortError is gRPC's
            # own way out of `context.abort`.
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                await errors.abort(context, error)

        async def single(request: Any, context: Context) -> bytes:
            try:
                if handler.request_streaming:
                    return encode(await inner(requests(request), context))
                # What a deadlock or a lock undid for certain is done again, within the call's deadline. Not what may
                # have been committed: the request may carry nothing that its repetition is known by.
                answer = await repeated(lambda: inner(requests(request), context), certain_only=True)
                return encode(answer)
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                await errors.abort(context, error)

        return rebuilt(handler, stream if handler.response_streaming else single, None, None)


class _Decoder:
    """Turns the bytes of one message, or of a stream of them, into what the handler expects."""

    def __init__(self, deserializer: Callable[[bytes], Any] | None, limit: int) -> None:
        self._deserializer = deserializer or _unchanged
        self._limit = limit

    def __call__(self, message: bytes) -> Any:
        if len(message) > self._limit:
            raise errors.ResourceExhausted(
                error_reason_pb2.ERROR_REASON_MESSAGE_TOO_LARGE,
                f"the message has {len(message)} bytes; at most {self._limit} are taken: send less at once",
                metadata={"bytes": str(len(message)), "limit": str(self._limit)},
            )
        try:
            return self._deserializer(message)
        except DecodeError:
            raise errors.InvalidArgument(
                error_reason_pb2.ERROR_REASON_MALFORMED_MESSAGE,
                "the message is not what the method expects: it cannot be decoded as its request type",
            ) from None

    async def stream(self, messages: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for message in messages:
            yield self(message)


class _Encoder:
    """Turns what the handler answers into the bytes of one message, never more than every client takes.

    The last guard only: the methods keep their answers below that, each in a way that lets its caller go on. A client
    that gets a longer message shows an error of its own, and one that sends usage sends it again for ever.
    """

    def __init__(self, serializer: Callable[[Any], bytes] | None) -> None:
        self._serializer = serializer or _unchanged

    def __call__(self, answer: Any) -> bytes:
        message: bytes = self._serializer(answer)
        if len(message) > CLIENT_LIMIT:
            raise errors.answer_too_large(len(message), CLIENT_LIMIT)
        return message


def _unchanged(message: Any) -> Any:
    return message


def _unknown_method(method: str) -> Behaviour:
    async def answer(_: Any, context: Context) -> bytes:
        await errors.abort(
            context,
            errors.Unimplemented(
                error_reason_pb2.ERROR_REASON_METHOD_UNKNOWN,
                f"there is no method {method}; ask the reflection service which there are",
                metadata={"method": method},
            ),
        )

    return answer
