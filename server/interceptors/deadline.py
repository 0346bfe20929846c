"""Limits the time of unary calls without a deadline, and the time that the request of a call may take to arrive."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from generated.tidemark.v1 import error_reason_pb2
from server.calls import current_call, errors
from server.calls.bounded_waits import BoundedWaits
from server.calls.context import Context
from server.interceptors.wrapping import Continuation, Handler, ReadLater, behaviour_of
from store.postgres.statement_bounds import bound_statements

# A request of health or reflection has a few bytes, in the same packet as its headers. It needs no key.
INFRASTRUCTURE_REQUEST = 5.0  # seconds
INFRASTRUCTURE_REQUESTS = 16  # of all callers, that arrive at the same time
API_REQUESTS = 64  # of callers with a key

# Methods that are called very often, and only read or write a few rows by their keys. Their statements can wait for
# nothing but locks, for which they have `lock_timeout`, so PostgreSQL need not know their deadline. To tell it costs
# about a tenth of such a call.
_BY_KEY = frozenset(
    {
        *("CreateAlert", "EvaluateUsageBatch", "DecrementBalances"),
        *(
            "GetAlert",
            "GetBalance",
            "GetCustomer",
            "GetInvoice",
            "GetLimit",
            "GetMetric",
            "GetNotification",
            "GetPlan",
        ),
        *("GetSubscription", "PutCustomer", "PutInvoice", "PutLimit", "PutMetric", "PutPlan", "PutSubscription"),
    }
)


class Deadline(grpc.aio.ServerInterceptor):
    """Ends a unary call without a deadline `default` seconds after its headers.

    It reads the request itself, after the checks of the outer interceptors: gRPC would wait for the request without a
    limit before it calls any of them. gRPC enforces the deadlines of callers. A stream of answers has no limit after
    its request has arrived. PostgreSQL knows the deadline of a unary
    call, unless its method is one of `_BY_KEY`.
    """

    def __init__(self, default: float, *, infrastructure_request: float = INFRASTRUCTURE_REQUEST) -> None:
        """infrastructure_request: seconds that a request of health or reflection may take to arrive."""
        self._default = default
        self._infrastructure_request = min(default, infrastructure_request)
        # gRPC accepts all bytes of a message while it is being read, and not before. So the number of requests that
        # arrive at the same time limits the memory for messages that are not complete.
        self.infrastructure = BoundedWaits(INFRASTRUCTURE_REQUESTS, "the rest of their requests")
        self._api = BoundedWaits(API_REQUESTS, "the rest of their requests")

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Wraps handlers that take one request. Others read their stream of requests themselves."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
        inner = behaviour_of(handler)

        infrastructure = current_call.is_infrastructure(handler_call_details.method)
        bounds_statements = handler_call_details.method.rpartition("/")[2] not in _BY_KEY
        arrival_limit = self._infrastructure_request if infrastructure else self._default

        async def single(_: Any, context: Context) -> Any:
            remaining = context.time_remaining()
            if bounds_statements:
                bound_statements(arrival_limit if remaining is None else remaining)
            if infrastructure or remaining is None:
                async with _limit(context, arrival_limit):
                    return await inner(await self._request(context), context)
            async with _limit(context, arrival_limit):
                request = await self._request(context)
            return await inner(request, context)

        async def stream(_: Any, context: Context) -> AsyncIterator[Any]:
            async with _limit(context, arrival_limit):
                request = await self._request(context)
            async with contextlib.aclosing(inner(request, context)) as responses:
                async for response in responses:
                    yield response
                    del response

        return ReadLater(bool(handler.response_streaming), stream if handler.response_streaming else single)

    async def _request(self, context: Context) -> Any:
        caller = current_call.get().caller
        waits, holder = (
            (self.infrastructure, context.peer())
            if caller is None
            else (self._api, str(caller.organization.organization_id))
        )
        try:
            with waits.waiting(holder):
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
    """Ends the call when the block takes longer than `seconds`."""
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
                f"the call took longer than {seconds:g} seconds, the limit for calls without a deadline and for the"
                " arrival of requests; it may have taken effect: repeat it with the same ids",
            ),
        )
