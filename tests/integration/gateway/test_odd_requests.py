"""Random bad requests to the HTTP port: each is answered or closed, none with a fault; good ones are served after."""

import asyncio
import json
import logging
import random

import pytest

from gateway.limits import HttpLimits
from generated.tidemark.v1 import alert_service_pb2
from proto.documents.contract import Binding
from tests.support.gateway.bindings import CARRIED, fitting, http_request
from tests.support.gateway.echo import echoing_front, raw
from tests.support.gateway.random_messages import random_message
from tests.support.waiting import within

SEED = 16
REQUESTS = 400
AT_ONCE = 20
_ODD = (
    "\0",
    "%00",
    "%",
    "%zz",
    "\ud800",
    "é",
    "[",
    "]",
    "{",
    "}",
    "null",
    "NaN",
    "1e999",
    '"',
    "\\u0000",
    "\\ud800",
    "//",
)


def encoded(draw: random.Random, verb: str, target: str, body: bytes) -> bytes:
    """A request whose path, headers or body may have odd bytes."""
    headers = ["Host: localhost", "Connection: close", "Content-Type: application/json"]
    if draw.random() < 0.2:
        odd = ("Content-Encoding: gzip", "Accept: x", "Request-Timeout: x", "If-Match: x", "ce-id: x", "Origin: x")
        headers.append(draw.choice(odd))
    if draw.random() < 0.1:
        headers.append(f"X-Request-Id: {draw.choice(_ODD)}")
    headers.append(f"Content-Length: {len(body)}")
    head = "\r\n".join([f"{verb} {target} HTTP/1.1", *headers, "", ""]).encode("utf-8", "surrogatepass")
    data = bytearray(head + body)
    if draw.random() < 0.3:
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
    if draw.random() < 0.1:
        del data[draw.randrange(len(data)) :]
    return bytes(data)


def odd_text(draw: random.Random, text: str) -> str:
    """The text with something odd in it, now and then."""
    if text and draw.random() < 0.5:
        at = draw.randrange(len(text))
        return text[:at] + draw.choice(_ODD) + text[at + draw.randint(0, 3) :]
    return text


def odd_request(draw: random.Random) -> bytes:
    method, binding = draw.choice(CARRIED)
    assert isinstance(binding, Binding)
    sent = http_request(method, binding, fitting(method, binding, random_message(method.input_type, draw)))
    body = b"" if sent.body is None else odd_text(draw, json.dumps(sent.body)).encode("utf-8", "surrogatepass")
    target = odd_text(draw, sent.target).replace(" ", "%20")
    if draw.random() < 0.1:
        target, body = "/v1/events", odd_text(draw, '{"specversion":"1.0","id":"1"}').encode("utf-8", "surrogatepass")
    return encoded(draw, sent.verb, target, body)


async def test_odd_requests_are_answered_or_closed(caplog: pytest.LogCaptureFixture) -> None:
    draw = random.Random(SEED)
    limits = HttpLimits(idle=0.5, body=0.3, linger=0.05)
    codes: list[int] = []
    async with echoing_front(limits) as (echo, serving, client):
        echo.answers = [alert_service_pb2.ListAlertsResponse()]
        gate = asyncio.Semaphore(AT_ONCE)

        async def send(request: bytes) -> None:
            async with gate, within(f"an end of {request[:200]!r}"):
                try:
                    answer = await raw(serving.port, request)
                except ConnectionError:
                    return
            if answer:
                assert answer.startswith(b"HTTP/"), (request, answer)
                codes.append(int(answer.split()[1]))
                assert codes[-1] not in (500, 502), (request, answer)

        await asyncio.gather(*(send(odd_request(draw)) for _ in range(REQUESTS)))
        assert (await client.get("/v1/alerts")).code == 200
        assert serving.connections <= 1
    # The requests reach all parts of the port.
    assert {200, 400, 404} <= set(codes)
    assert "Traceback" not in caplog.text
    # The level of the log is that of the process: information may be in it.
    assert [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING] == []
