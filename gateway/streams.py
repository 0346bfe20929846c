"""Streams of answers over HTTP: lines of JSON, or server-sent events that browsers continue by themselves."""

from typing import Any

import grpc
import orjson
from aiohttp import web

from gateway.answers import EVENT_STREAM, LINES, send, stream_response
from gateway.calls import refusals
from gateway.calls.backend import Metadata
from gateway.calls.channels import Channels, with_request_id
from gateway.limits import HttpLimits
from gateway.transcoding.routes import Route
from gateway.transcoding.writing import writer_of
from runtime.http_connections import in_time

# Milliseconds after which a client of server-sent events comes back when the server has ended its stream.
RECONNECT = 1_000
OFFERED = (LINES, EVENT_STREAM)


async def answer_stream(
    request: web.BaseRequest,
    route: Route,
    message: bytes,
    metadata: Metadata,
    timeout: float | None,
    *,
    content_type: str,
    headers: dict[str, str],
    channels: Channels,
    limits: HttpLimits,
) -> web.StreamResponse:
    """Answers with a stream until it ends, or its client goes. Raises Refusal before the first answer only."""
    write, decode = writer_of(route.method.output_type), route.response_class.FromString
    encode = _event if content_type == EVENT_STREAM else _line
    response = stream_response(content_type)
    response.headers.update(headers)
    async with channels.stream(route.rpc, message, metadata, timeout) as call:
        try:
            part = await call.read()
            async with in_time(request, limits.write):
                await response.prepare(request)
            while part is not grpc.aio.EOF:
                assert isinstance(part, bytes)
                async with in_time(request, limits.write):
                    await response.write(encode(write(decode(part))))
                part = await call.read()
        except grpc.aio.AioRpcError as error:
            refusal = with_request_id(refusals.of_call(error), error)
            if not response.prepared:
                raise refusal from None
            # The code of the answer has been sent. This is the last part of the stream.
            async with in_time(request, limits.write):
                await response.write(_last_words(refusal, content_type))
    return await send(request, response, limits)


def _line(answer: dict[str, Any]) -> bytes:
    return orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE)


def _event(answer: dict[str, Any]) -> bytes:
    """A server-sent event. Its id is the token that continues the stream after it.

    A heartbeat is a comment, and the end of the stream a time to come back after; both move the client's token, and
    are no event for the page.
    """
    token = str(answer.get("resumeToken", ""))
    identified = f"id: {token}\n".encode() if token else b""
    if answer.get("goingAway"):
        return b": going away\nretry: %d\n%s\n" % (RECONNECT, identified)
    if answer.get("heartbeat"):
        return b": heartbeat\n%s\n" % identified
    return b"%sdata: %s\n\n" % (identified, orjson.dumps(answer))


def _last_words(refusal: refusals.Refusal, content_type: str) -> bytes:
    if content_type == EVENT_STREAM:
        return b"event: error\ndata: %s\n\n" % refusal.body()
    return refusal.body() + b"\n"
