"""The HTTP application: finds the route of a request, makes its call, and answers."""

import asyncio
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import hdrs, web
from google.protobuf.message import Message
from google.rpc import code_pb2

from gateway import pages
from gateway.answers import chosen_type, json_response, refusal_response, send
from gateway.bodies import JSON, Bodies, check_json
from gateway.calls import refusals
from gateway.calls.backend import Backend, Metadata
from gateway.calls.callers import metadata_of
from gateway.calls.channels import REQUEST_ID, Channels, deadline_of
from gateway.cloudevents.handler import CloudEvents
from gateway.cloudevents.mapping import Mapping
from gateway.limits import HttpLimits
from gateway.origins import check_host, check_origin, preflight_headers
from gateway.streams import OFFERED, answer_stream
from gateway.transcoding.problems import Problems
from gateway.transcoding.requests import NotJson, read_request
from gateway.transcoding.routes import Route, Router, routes
from gateway.transcoding.writing import writer_of
from generated.tidemark.v1 import error_reason_pb2
from runtime.actions import LogAction
from runtime.configuration import DEFAULT_MAX_BATCH_EVENTS

EVENTS_PATH = "/v1/events"
_PAGES = ("/", "/openapi.json", "/healthz", "/readyz")
_ETAG_MISMATCH = "ERROR_REASON_ETAG_MISMATCH"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """max_body: bytes of a body. allow_origins: of pages in browsers. mapping: of CloudEvents.

    max_events: of a batch of CloudEvents; that of the server behind.
    """

    max_body: int
    allow_origins: Collection[str]
    mapping: Mapping
    max_events: int = DEFAULT_MAX_BATCH_EVENTS


class Application:
    """Answers HTTP requests by calls of the server behind."""

    def __init__(self, backend: Backend, settings: Settings, limits: HttpLimits, *, is_local: bool) -> None:
        """is_local: only callers on this machine reach the port. As long as no key exists, they need none."""
        self._is_local = is_local
        self._backend = backend
        self._settings = settings
        self._limits = limits
        self._router = Router(routes())
        self._bodies = Bodies(settings.max_body, limits)
        self._channels = Channels(backend.forwarding.target, limits.streams_per_channel)
        self._events = CloudEvents(settings.mapping, self._channels, settings.max_events)
        self.is_draining = False

    async def close(self) -> None:
        """Cancels the calls that are open."""
        await self._channels.close()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers a request."""
        headers: dict[str, str] = {}
        try:
            headers = check_origin(request, self._settings.allow_origins)
            response = await self._answer(request, headers)
        except refusals.Refusal as refusal:
            response = refusal_response(refusal)
        except ConnectionError:
            raise
        except Exception as error:
            logger.error("a request failed unexpectedly", exc_info=error, extra={"action": LogAction.INTERNAL_ERROR})
            response = refusal_response(
                refusals.refusal(
                    code_pb2.INTERNAL,
                    error_reason_pb2.ERROR_REASON_INTERNAL,
                    "internal error: the log of the service has its details",
                    metadata={"request_id": request.headers.get(REQUEST_ID, "")[:128]},
                )
            )
        if not response.prepared:
            response.headers.update(headers)
        if self.is_draining:
            response.force_close()
        return await send(request, response, self._limits)

    async def _answer(self, request: web.BaseRequest, headers: dict[str, str]) -> web.StreamResponse:
        path, _, query = _target(request).partition("?")
        if path in _PAGES:
            return self._page(request, path)
        if path == EVENTS_PATH:
            return await self._on_events(request)
        found = self._router.find(path)
        if found is None:
            raise refusals.unknown_path(request.method, path)
        routes_here = {verb: route for verb, (route, _) in found.by_verb.items()}
        allowed = _allowed(routes_here)
        if request.method == hdrs.METH_OPTIONS:
            return _options(request, allowed)
        verb = hdrs.METH_GET if request.method == hdrs.METH_HEAD else request.method
        if request.method not in allowed:
            raise refusals.method_not_allowed(request.method, path, allowed)
        route, values = found.by_verb[verb]
        if self._is_local:
            check_host(request)
        return await self._call(request, route, values, query, headers)

    async def _call(
        self, request: web.BaseRequest, route: Route, values: Sequence[str], query: str, headers: dict[str, str]
    ) -> web.StreamResponse:
        content_type = _content_type(request, OFFERED if route.streams else (JSON,))
        timeout = deadline_of(request.headers.get("Request-Timeout"))
        metadata = metadata_of(request, self._backend.forwarding.secret)
        body = await self._bodies.read(request, lambda: self._admit(route.rpc, metadata))
        check_json(request, body)
        if_match = _if_match(request) if route.etag else None
        problems = Problems(self._settings.max_events, reads_later=True)
        message: Message | None = None
        try:
            for message in read_request(route, values, query, body, problems, if_match):
                if message is None:
                    await asyncio.sleep(0)  # other calls of the process have a turn
        except NotJson as error:
            raise refusals.malformed(f"the body is not JSON: {error}") from None
        if (too_many := problems.too_many_events) is not None:
            raise refusals.too_many_events(too_many.number, too_many.most, too_many.path)
        if problems.found or message is None:
            raise refusals.invalid_fields(problems.found)
        if route.streams:
            _resume(message, request)
            return await answer_stream(
                request,
                route,
                message.SerializeToString(),
                metadata,
                timeout,
                content_type=content_type,
                headers=headers,
                channels=self._channels,
                limits=self._limits,
            )
        try:
            answer, request_id = await self._channels.unary(route.rpc, message.SerializeToString(), metadata, timeout)
        except refusals.Refusal as refusal:
            if if_match is not None and refusals.reason_of(refusal.status) == _ETAG_MISMATCH:
                refusal.http_code = 412
            raise
        return _answered(route, route.response_class.FromString(answer), request_id)

    async def _on_events(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == hdrs.METH_OPTIONS:
            return _options(request, ["POST", "OPTIONS"])
        if request.method != hdrs.METH_POST:
            raise refusals.method_not_allowed(request.method, EVENTS_PATH, ["POST", "OPTIONS"])
        if self._is_local:
            check_host(request)
        _content_type(request, (JSON,))
        metadata = metadata_of(request, self._backend.forwarding.secret)
        timeout = deadline_of(request.headers.get("Request-Timeout"))
        body = await self._bodies.read(request, lambda: self._admit(self._events.rpc, metadata))
        code, answer, request_id = await self._events.count(request.headers, body, metadata, timeout)
        return json_response(answer, code, {REQUEST_ID: request_id} if request_id else {})

    async def _admit(self, rpc: str, metadata: Metadata) -> None:
        refused = await self._backend.admit(rpc, metadata)
        if refused is not None:
            raise refusals.of_status(refused)

    def _page(self, request: web.BaseRequest, path: str) -> web.Response:
        allowed = ["GET", "HEAD", "OPTIONS"]
        if request.method == hdrs.METH_OPTIONS:
            return _options(request, allowed)
        if request.method not in allowed:
            raise refusals.method_not_allowed(request.method, path, allowed)
        if path == "/openapi.json":
            return pages.openapi(request)
        if path == "/healthz":
            return pages.health(True, "alive")
        if path == "/readyz":
            return pages.health(self._backend.is_ready(), "ready")
        return pages.landing()


def _target(request: web.BaseRequest) -> str:
    """The path and the query as they were sent, still encoded."""
    target = request.raw_path
    return target if target.startswith("/") else request.rel_url.raw_path_qs


def _allowed(routes_here: dict[str, Route]) -> list[str]:
    allowed = sorted(routes_here)
    if "GET" in routes_here and not routes_here["GET"].streams:
        allowed.append("HEAD")
    return [*allowed, "OPTIONS"]


def _options(request: web.BaseRequest, allowed: Sequence[str]) -> web.Response:
    headers = {"Allow": ", ".join(allowed)}
    if "Access-Control-Request-Method" in request.headers:
        headers |= preflight_headers([verb for verb in allowed if verb != "OPTIONS"])
    return web.Response(status=204, headers=headers)


def _content_type(request: web.BaseRequest, offered: tuple[str, ...]) -> str:
    """The type of the answer. Raises Refusal where the client accepts none."""
    chosen = chosen_type(",".join(request.headers.getall(hdrs.ACCEPT, [])), offered)
    if chosen is None:
        raise refusals.malformed(
            f"the header Accept allows no type of this answer: accept {' or '.join(offered)}", http_code=406
        )
    return chosen


def _if_match(request: web.BaseRequest) -> str | None:
    """The etag of the header If-Match; None without one, and for "*", which every resource that exists matches."""
    value = request.headers.get(hdrs.IF_MATCH, "").strip()
    if not value or value == "*":
        return None
    if not (value.startswith('"') and value.endswith('"') and value.count('"') == 2):
        raise refusals.malformed('the header If-Match is not one etag in quotes, such as "7"')
    return value[1:-1]


def _resume(message: Any, request: web.BaseRequest) -> None:
    """Continues after the last event that the client has seen, which its browser sends when it comes back."""
    last_event = request.headers.get("Last-Event-ID", "")
    if last_event and "resume_token" in message.DESCRIPTOR.fields_by_name:
        message.resume_token = last_event
        if "start_time" in message.DESCRIPTOR.fields_by_name:
            message.ClearField("start_time")


def _answered(route: Route, answer: Message, request_id: str) -> web.Response:
    shown: Any = writer_of(route.method.output_type)(answer)
    if route.response_body:
        shown = shown.get(answer.DESCRIPTOR.fields_by_name[route.response_body].json_name, {})
    headers = {REQUEST_ID: request_id} if request_id else {}
    resource = next(iter(shown.values())) if isinstance(shown, dict) and shown else None
    if isinstance(resource, dict) and isinstance(etag := resource.get("etag"), str):
        headers["ETag"] = f'"{etag}"'
    return json_response(shown, headers=headers)
