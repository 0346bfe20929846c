"""Bounds unary calls that bring no deadline, and the only request of every call while it is on its way."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from generated.tidemark.v1 import error_reason_pb2
from server.calls import call as calls
from server.calls import errors
from server.calls.places import Places
from server.interceptors.around import Context, Continuation, Handler, ReadLater, behaviour_of

# A request of health or reflection is a few bytes in the packet of its headers. No key is needed to send one.
INFRASTRUCTURE_REQUEST = 5.0  # seconds
INFRASTRUCTURE_REQUESTS = 16  # of all callers, on their way at the same time
API_REQUESTS = 64  # of callers with a key


class Deadline(grpc.aio.ServerInterceptor):
    """Ends a unary call that brings no deadline after `default` seconds, counted from its headers.

    It reads the request itself, after whatever the interceptors further out check: gRPC would wait for it without
    bound before it calls the first of them. gRPC itself enforces the deadlines of callers; streams may last, once
    their only request is there.
    """

    def __init__(self, default: float) -> None:
        self._default = default
        # gRPC lets a caller send the whole of a message that is being read, and not before. So the number of these
        # bounds the bytes that half-sent messages hold.
        self.infrastructure = Places(INFRASTRUCTURE_REQUESTS, "the rest of their requests")
        self._api = Places(API_REQUESTS, "the rest of their requests")

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Wraps handlers that take one request; the others read theirs themselves."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
        inner = behaviour_of(handler)

        infrastructure = calls.is_infrastructure(handler_call_details.method)
        on_its_way = min(self._default, INFRASTRUCTURE_REQUEST) if infrastructure else self._default

        async def single(_: Any, context: Context) -> Any:
            if infrastructure or context.time_remaining() is None:
                async with _limit(context, on_its_way):
                    return await inner(await self._request(context), context)
            async with _limit(context, on_its_way):
                request = await self._request(context)
            return await inner(request, context)

        async def stream(_: Any, context: Context) -> AsyncIterator[Any]:
            async with _limit(context, on_its_way):
                request = await self._request(context)
            async with contextlib.aclosing(inner(request, context)) as responses:
                async for response in responses:
                    yield response

        return ReadLater(bool(handler.response_streaming), stream if handler.response_streaming else single)

    async def _request(self, context: Context) -> Any:
        caller = calls.current().caller
        places, holder = (
            (self.infrastructure, context.peer())
            if caller is None
            else (self._api, str(caller.organization.organization_id))
        )
        try:
            with places.waiting(holder):
                request = await context.read()
        except errors.ResourceExhausted as error:
            await errors.abort(context, error)
        if request is grpc.aio.EOF:
            await errors.abort(
                context,
                errors.InvalidArgument(
                    error_reason_pb2.ERROR_REASON_MALFORMED_MESSAGE, "the call ended without a request: send one"
                ),
            )
        return request


@contextlib.asynccontextmanager
async def _limit(context: Context, seconds: float) -> AsyncIterator[None]:
    """Ends the call when the block takes longer."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        await errors.abort(
            context,
            errors.DeadlineExceeded(
                error_reason_pb2.ERROR_REASON_DEADLINE_EXCEEDED,
                f"the call took longer than {seconds:g} seconds, the limit for calls that bring no"
                " deadline and for requests on their way; whether it took effect is unknown: repeat it with the"
                " same ids",
            ),
        )
