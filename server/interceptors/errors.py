"""The innermost interceptor: it answers every exception of a handler with a status of the API."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any, cast

import grpc
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

from engine.quotas.organization_quotas import OrganizationQuotas
from generated.tidemark.v1 import error_reason_pb2
from runtime.quotas import QuotaKind
from runtime.turns import Slices
from server.authentication.access import check_customer
from server.calls import current_call, errors
from server.calls.answer_size import CLIENT_LIMIT
from server.calls.context import Context
from server.calls.element_limits import EXAMINED, excess
from server.calls.errors import ErrorTable
from server.calls.shared_errors import malformed_message, quota_reached
from server.interceptors.wrapping import Behaviour, Continuation, Handler, behaviour_of, rebuilt
from store.identity.quotas import QuotaReached
from store.postgres.retries import repeated

# Bytes of a request of health or reflection, which contains a name. It needs no key, so the limit is low.
INFRASTRUCTURE_MESSAGE_BYTES = 1_024

# Bytes of a message from which on its decoding takes a turn on the event loop: 5,000 events have 300 kB, which take
# 0.5 ms, and the messages of many streams arrive in one pass of the loop.
LARGE_MESSAGE = 16_384

_BYTES = QuotaKind.BYTES_PER_SECOND


class Errors(grpc.aio.ServerInterceptor):
    """Ends a call that fails with a complete google.rpc.Status.

    gRPC would answer an exception with UNKNOWN and its text. It also decodes and encodes messages outside of the
    handler, where no interceptor can catch an exception. So messages arrive here as bytes, and this interceptor
    decodes, limits and encodes them.
    """

    def __init__(
        self,
        max_message_bytes: int,
        tables: Mapping[str, ErrorTable] | None = None,
        decoders: Mapping[str, Callable[[bytes], Any]] | None = None,
        *,
        quotas: OrganizationQuotas,
    ) -> None:
        """tables: the error table of each service, by the full name of the service. decoders: of the requests that
        are not decoded by protobuf, by method; they raise DecodeError."""
        self._limit = max_message_bytes
        self._quotas = quotas
        self._tables = tables or {}
        self._decoders = decoders or {}

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Wraps the handler, or answers for a method that does not exist."""
        handler = await continuation(handler_call_details)
        if handler is None:
            # A handler of this kind can answer a call of any kind, and does not wait for its requests.
            return grpc.stream_unary_rpc_method_handler(_unknown_method(handler_call_details.method))
        limit = self._limit
        if current_call.is_infrastructure(handler_call_details.method):
            limit = min(limit, INFRASTRUCTURE_MESSAGE_BYTES)
        decoder = self._decoders.get(handler_call_details.method, handler.request_deserializer)
        table = self._tables.get(service_of(handler_call_details.method), {})
        method = handler_call_details.method
        answering = _Answering(handler, _Decoder(decoder, limit, method, self._quotas), table)
        return rebuilt(handler, answering.stream if handler.response_streaming else answering.single, None, None)


def service_of(method: str) -> str:
    """The full name of the service of a method such as /tidemark.v1.AlertService/GetAlert."""
    return method.split("/")[1] if method.count("/") == 2 else ""


class _Answering:
    """Runs one handler with bytes in and out, and answers its exceptions.

    Only an Exception is answered: a cancellation must pass, or gRPC leaks the call. AbortError passes too, because
    `context.abort` raises it after it has answered.
    """

    # Each call has its own, and many streams are open for long.
    __slots__ = ("_behaviour", "_decode", "_encode", "_request_streaming", "_requests", "_table")

    def __init__(self, handler: Handler, decode: "_Decoder", table: ErrorTable) -> None:
        """table: of the handler's service."""
        self._decode = decode
        self._requests = decode.stream if handler.request_streaming else decode
        self._request_streaming = handler.request_streaming
        self._encode = _Encoder(handler.response_serializer)
        self._behaviour = behaviour_of(handler)
        self._table = table

    async def stream(self, request: Any, context: Context) -> AsyncIterator[bytes]:
        """Answers with a stream of messages."""
        try:
            if not self._request_streaming:
                self._decode.take(request)
                await self._decode.examine(request)
            async with contextlib.aclosing(self._behaviour(self._requests(request), context)) as responses:
                async for response in responses:
                    yield self._encode(response)
                    del response
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await errors.abort(context, error, self._table)

    async def single(self, request: Any, context: Context) -> bytes:
        """Answers with one message."""
        try:
            if self._request_streaming:
                return self._encode(await self._behaviour(self._requests(request), context))
            # Repeats a transaction that was rolled back for certain, for example by a deadlock, within the call's
            # deadline. It does not repeat one that may be committed: the request may have no request id.
            self._decode.take(request)
            await self._decode.examine(request)
            answer = await repeated(lambda: self._behaviour(self._requests(request), context), certain_only=True)
            return self._encode(answer)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await errors.abort(context, error, self._table)


class _Decoder:
    """Decodes one request, or a stream of requests."""

    __slots__ = ("_deserializer", "_limit", "_method", "_quotas", "_type")

    def __init__(
        self,
        deserializer: Callable[[bytes], Any] | None,
        limit: int,
        method: str,
        quotas: OrganizationQuotas,
    ) -> None:
        self._quotas = quotas
        self._deserializer = deserializer or _unchanged
        self._type = _type_of(deserializer)
        self._limit = limit
        self._method = method

    def __call__(self, message: bytes) -> Any:
        if len(message) > self._limit:
            raise errors.ResourceExhausted(
                error_reason_pb2.ERROR_REASON_MESSAGE_TOO_LARGE,
                f"the message has {len(message)} bytes; at most {self._limit} are accepted: send less in one message",
                metadata={"bytes": str(len(message)), "limit": str(self._limit)},
            )
        try:
            request = self._deserializer(message)
        except DecodeError:
            raise malformed_message() from None
        caller = current_call.get().caller
        if caller is not None and caller.customer_id:
            check_customer(caller, self._method, request)
        return request

    def take(self, message: bytes) -> None:
        """Takes the bytes of a single request from the quota of its organization. Raises ResourceExhausted."""
        caller = current_call.get().caller
        if caller is None:
            return
        try:
            self._quotas.use(caller.organization.organization_id).take(_BYTES, len(message))
        except QuotaReached as reached:
            raise quota_reached(reached) from None

    async def stream(self, messages: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        # gRPC's generator has a reference to itself until it has ended.
        received = cast("AsyncGenerator[bytes, None]", aiter(messages))
        async with contextlib.aclosing(received):
            async for message in received:
                if (caller := current_call.get().caller) is not None:
                    await self._quotas.use(caller.organization.organization_id).take_in_turn(_BYTES, len(message))
                await self.examine(message)
                yield self(message)
                del message

    async def examine(self, message: bytes) -> None:
        """Waits for the turn of a large message. Raises InvalidArgument for one whose lists are too long."""
        size = len(message)
        if size <= EXAMINED or size > self._limit:
            return
        caller = current_call.get().caller
        slices = Slices(caller.organization.organization_id if caller else None)
        if size > LARGE_MESSAGE:
            await slices.begin()
        if self._type is None:
            return
        if size <= LARGE_MESSAGE:
            slices.begin_at_once()
        try:
            for violation in excess(message, self._type):
                if violation is not None:
                    raise errors.InvalidArgument(
                        error_reason_pb2.ERROR_REASON_INVALID_FIELD,
                        ": ".join(filter(None, (violation.path, violation.description))),
                        violations=(violation,),
                    )
                await slices.pause()
        except DecodeError:
            raise malformed_message() from None


class _Encoder:
    """Encodes one answer, of at most CLIENT_LIMIT bytes, or as many as its request asked for.

    The methods keep their answers below the limit, each in a way that lets the caller continue; this is the last
    check. A client that receives a longer message shows an error of its own, and a client that sends usage would send
    the same batch for ever.
    """

    __slots__ = ("_serializer",)

    def __init__(self, serializer: Callable[[Any], bytes] | None) -> None:
        self._serializer = serializer or _unchanged

    def __call__(self, answer: Any) -> bytes:
        message: bytes = self._serializer(answer)
        if len(message) > CLIENT_LIMIT:
            limit = max(CLIENT_LIMIT, current_call.requested_answer_bytes())
            if len(message) > limit:
                raise errors.answer_too_large(len(message), limit)
        return message


def _type_of(deserializer: Callable[[bytes], Any] | None) -> Descriptor | None:
    """The type of the messages that a function of protobuf decodes; None for another function."""
    descriptor = getattr(getattr(deserializer, "__self__", None), "DESCRIPTOR", None)
    return descriptor if isinstance(descriptor, Descriptor) else None


def _unchanged(message: Any) -> Any:
    return message


def _unknown_method(method: str) -> Behaviour:
    async def answer(_: Any, context: Context) -> bytes:
        await errors.abort(
            context,
            errors.Unimplemented(
                error_reason_pb2.ERROR_REASON_METHOD_UNKNOWN,
                f"there is no method {method}: the reflection service lists the methods",
                metadata={"method": method},
            ),
        )

    return answer
