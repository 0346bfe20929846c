"""A service whose handlers do what a handler should not do, to test the server around them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import StringValue
from sqlalchemy import text

from generated.tidemark.v1 import error_reason_pb2
from server.calls import current_call, errors
from server.calls.current_call import current_organization
from server.parts import Parts
from store.postgres.database import DatabaseUnavailable

NAME = "test.v1.OddService"
SECRET = "secret detail of the inside"

Context = grpc.aio.ServicerContext[Any, Any]


class OddService:
    """Each handler is named by what it does."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.dependencies: Parts | None = None

    async def who_am_i(self, request: StringValue, context: Context) -> StringValue:
        organization = current_organization()
        return StringValue(value=f"{organization.name} {current_call.request_id()}")

    async def who_am_i_stream(
        self, requests: AsyncIterator[StringValue], context: Context
    ) -> AsyncIterator[StringValue]:
        async for request in requests:
            yield StringValue(value=f"{current_organization().name} {current_call.request_id()} {request.value}")

    async def fail(self, request: StringValue, context: Context) -> StringValue:
        raise ValueError(SECRET)

    async def fail_stream(self, requests: AsyncIterator[StringValue], context: Context) -> AsyncIterator[StringValue]:
        async for request in requests:
            yield request
            raise ValueError(SECRET)

    async def fail_server_stream(self, request: StringValue, context: Context) -> AsyncIterator[StringValue]:
        if request.value:
            yield request
        raise ValueError(SECRET)

    async def lose_database(self, request: StringValue, context: Context) -> StringValue:
        raise DatabaseUnavailable(SECRET)

    async def sleep_in_database(self, request: StringValue, context: Context) -> StringValue:
        assert self.dependencies is not None
        async with self.dependencies.database.transaction() as connection:
            self.started.set()
            await connection.execute(text("SELECT pg_sleep(3600)"))
        return request

    async def sleep_in_database_stream(
        self, requests: AsyncIterator[StringValue], context: Context
    ) -> AsyncIterator[StringValue]:
        async for request in requests:
            yield await self.sleep_in_database(request, context)

    async def sleep_in_pipeline(self, request: StringValue, context: Context) -> StringValue:
        assert self.dependencies is not None
        async with self.dependencies.database.raw_transaction() as connection, connection.pipeline():
            self.started.set()
            for _ in range(3):
                await connection.execute("SELECT pg_sleep(3600)")
        return request

    async def show_timeout(self, request: StringValue, context: Context) -> StringValue:
        assert self.dependencies is not None
        async with self.dependencies.database.transaction() as connection:
            shown = text("SELECT setting FROM pg_settings WHERE name = 'statement_timeout'")
            return StringValue(value=await connection.scalar(shown))  # milliseconds

    async def answer_nonsense(self, request: StringValue, context: Context) -> StringValue:
        return SECRET  # type: ignore[return-value]  # what a bug would do

    async def refuse_stream(
        self, requests: AsyncIterator[StringValue], context: Context
    ) -> AsyncIterator[StringValue]:
        async for request in requests:
            if request.value == "bad":
                raise errors.InvalidArgument(
                    error_reason_pb2.ERROR_REASON_INVALID_FIELD,
                    "it is bad",
                    violations=[errors.FieldViolation("value", "it is bad")],
                )
            yield request

    async def answer_long(self, request: StringValue, context: Context) -> StringValue:
        return StringValue(value="x" * int(request.value))

    async def answer_long_stream(
        self, requests: AsyncIterator[StringValue], context: Context
    ) -> AsyncIterator[StringValue]:
        async for request in requests:
            yield StringValue(value="x" * int(request.value))

    async def hang(self, request: StringValue, context: Context) -> StringValue:
        await self._hang()
        return request

    async def hang_stream(self, requests: AsyncIterator[StringValue], context: Context) -> AsyncIterator[StringValue]:
        async for request in requests:
            yield request
            await self._hang()

    async def flood(self, request: StringValue, context: Context) -> AsyncIterator[StringValue]:
        while True:
            self.started.set()
            yield StringValue(value="x" * 100_000)

    async def echo_until_drained(
        self, requests: AsyncIterator[StringValue], context: Context
    ) -> AsyncIterator[StringValue]:
        """What a well-behaved stream does: it races its next request against the drain."""
        assert self.dependencies is not None
        draining = asyncio.ensure_future(self.dependencies.drain.begun.wait())
        self.started.set()
        try:
            while True:
                next_request = asyncio.ensure_future(anext(requests, None))
                await asyncio.wait({next_request, draining}, return_when=asyncio.FIRST_COMPLETED)
                if not next_request.done():
                    next_request.cancel()
                    yield StringValue(value="going away")
                    return
                request = next_request.result()
                if request is None:
                    return
                yield request
        finally:
            draining.cancel()

    async def _hang(self) -> None:
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    def register(self, server: grpc.aio.Server, dependencies: Parts) -> tuple[str, ...]:
        """Adds the service, as `server.services.register` adds the real ones."""
        self.dependencies = dependencies
        coding: dict[str, Any] = {
            "request_deserializer": StringValue.FromString,
            "response_serializer": StringValue.SerializeToString,
        }
        unary, server_stream, stream = (
            grpc.unary_unary_rpc_method_handler,
            grpc.unary_stream_rpc_method_handler,
            grpc.stream_stream_rpc_method_handler,
        )
        handlers: dict[str, Any] = {
            "WhoAmI": unary(self.who_am_i, **coding),
            "WhoAmIStream": stream(self.who_am_i_stream, **coding),
            "Fail": unary(self.fail, **coding),
            "FailStream": stream(self.fail_stream, **coding),
            "FailServerStream": server_stream(self.fail_server_stream, **coding),
            "LoseDatabase": unary(self.lose_database, **coding),
            "SleepInDatabase": unary(self.sleep_in_database, **coding),
            "SleepInDatabaseStream": stream(self.sleep_in_database_stream, **coding),
            "SleepInPipeline": unary(self.sleep_in_pipeline, **coding),
            "ShowTimeout": unary(self.show_timeout, **coding),
            "AnswerNonsense": unary(self.answer_nonsense, **coding),
            "RefuseStream": stream(self.refuse_stream, **coding),
            "AnswerLong": unary(self.answer_long, **coding),
            "AnswerLongStream": stream(self.answer_long_stream, **coding),
            "Hang": unary(self.hang, **coding),
            "HangStream": stream(self.hang_stream, **coding),
            "Flood": server_stream(self.flood, **coding),
            "EchoUntilDrained": stream(self.echo_until_drained, **coding),
        }
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(NAME, handlers)])
        return (NAME,)


class OddClient:
    """Calls of the odd service; messages are texts."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._coding: dict[str, Any] = {
            "request_serializer": lambda text: StringValue(value=text).SerializeToString(),
            "response_deserializer": lambda data: StringValue.FromString(data).value,
        }

    def unary(self, name: str) -> Any:
        """A callable for a unary method."""
        return self._channel.unary_unary(f"/{NAME}/{name}", **self._coding)

    def server_stream(self, name: str) -> Any:
        """A callable for a method that answers with a stream."""
        return self._channel.unary_stream(f"/{NAME}/{name}", **self._coding)

    def stream(self, name: str) -> Any:
        """A callable for a method with streams both ways."""
        return self._channel.stream_stream(f"/{NAME}/{name}", **self._coding)
