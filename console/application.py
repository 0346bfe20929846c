"""The application: routes, and what happens to every request before and after its page."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import grpc
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from console.access import cookies, headers, origins, posts
from console.access.api import Api, ApiError, Calls
from console.access.attempts import Attempts, Network, client_of
from console.access.identity import Viewer, Viewers
from console.access.sessions import Session, Sessions
from console.access.shared_reads import SharedReads
from console.access.visit import NO_FORM, Visit, see_other
from console.pages import alert_form, problems, signin
from console.pages.routes import routes
from console.words.rendering import STATIC, environment, link
from runtime.clock import Clock
from runtime.http_connections import DEFAULT_LIMITS

_OPEN_PATHS = ("/static/", "/healthz")
_SESSION: web.RequestKey[Session | None] = web.RequestKey("session", object)  # type: ignore[arg-type]
_FORM: web.RequestKey[posts.Form] = web.RequestKey("form", posts.Form)

logger = logging.getLogger(__name__)

Page = Callable[[Visit], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Settings:
    """What an application is made of.

    allows_no_key: visitors need no key where the server needs none: the console listens on this machine only, and has
    no certificate that could identify it to the server. proxies: peers whose X-Forwarded-For names the client.
    body_seconds: in which a form has to arrive.
    """

    sessions: Sessions
    clock: Clock
    allows_no_key: bool = False
    proxies: Sequence[Network] = ()
    body_seconds: float = DEFAULT_LIMITS.body


class Console:
    """One application for one server."""

    def __init__(self, api: Api, settings: Settings) -> None:
        self._api = api
        self._settings = settings
        self._templates = environment()
        self._viewers = Viewers()
        self._attempts = Attempts(asyncio.get_running_loop().time)
        self.application = web.Application(
            middlewares=[self._with_errors, self._with_session], client_max_size=posts.MAX_BYTES
        )
        self._shared = SharedReads()
        self.application.on_response_prepare.append(headers.add_headers)
        router = self.application.router
        router.add_get("/healthz", _healthz)
        router.add_get("/static/{digest}/{name}", self._static)
        router.add_get("/signin", self._signin_page)
        router.add_post("/signin", self._sign_in)
        router.add_post("/signout", self._sign_out)
        for method, path, page in routes():
            add = router.add_get if method == hdrs.METH_GET else router.add_post  # a GET allows HEAD, too
            add(path, self._handler(page))

    # --- before and after a page ---

    @web.middleware
    async def _with_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Shows what went wrong as a page that says what to do."""
        try:
            return await handler(request)
        except web.HTTPException as error:
            if problems.is_of_http(error.status):
                return self._problem(request, problems.of_http(error.status))
            raise
        except posts.Unreadable:
            return self._problem(request, problems.UNREADABLE_FORM)
        except alert_form.TooLarge:
            return self._problem(request, problems.TOO_LARGE_FOR_A_FORM)
        except ApiError as error:
            if error.reason in ("ERROR_REASON_UNAUTHENTICATED",) and not request.path.startswith("/signin"):
                return self._to_signin(request, ended=True)
            return self._problem(request, problems.of_call(error))
        except ConnectionError:  # the visitor has left
            raise
        except Exception:
            logger.exception("a page failed: %s %s", request.method, request.path)
            return self._problem(request, problems.UNEXPECTED)

    @web.middleware
    async def _with_session(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Reads the session; refuses what pages of other sites cause."""
        if request.path.startswith(_OPEN_PATHS):
            return await handler(request)
        reads = request.method in (hdrs.METH_GET, hdrs.METH_HEAD)
        if reads and origins.is_part_of_another_site(request):
            return self._problem(request, problems.OTHER_SITE)
        now = self._settings.clock.now()
        session = self._settings.sessions.read(cookies.read(request), now)
        if session is not None and session.is_open and not self._is_open_to(request):
            session = None
        request[_SESSION] = session
        if not reads:
            if session is None:
                return self._to_signin(request, ended=True)
            if not origins.is_of_this_site(request):
                return self._problem(request, problems.FOREIGN_FORM)
            form = await posts.read_form(
                request, is_guest=not session.is_signed_in, seconds=self._settings.body_seconds
            )
            if not origins.is_token(form.get("csrf", ""), session.csrf):
                return self._problem(request, problems.FOREIGN_FORM)
            request[_FORM] = form
        return await handler(request)

    def _handler(self, page: Page) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            session = request[_SESSION]
            is_new = False
            if session is None or not session.is_signed_in:
                session = await self._open_session(request)
                if session is None:
                    return self._to_signin(request, ended=False)
                is_new = True
            calls = Calls(self._api, session.key)
            viewer = await self._viewers.of(calls, session.key)
            if not viewer.may_read:
                return self._problem(request, problems.NO_READER)
            response = await page(self._visit(request, session, viewer, calls))
            if is_new:
                cookies.write(request, response, self._settings.sessions.cookie(session))
            return response

        return handle

    async def _open_session(self, request: web.Request) -> Session | None:
        """A session without a key, where the server needs none and the visitor is on this machine."""
        if not self._is_open_to(request):
            return None
        try:
            await self._viewers.of(Calls(self._api, None), None)
        except ApiError as error:
            if error.is_unreachable:
                raise
            return None
        return self._settings.sessions.new(self._settings.clock.now(), is_open=True)

    def _is_open_to(self, request: web.Request) -> bool:
        return (
            self._settings.allows_no_key and origins.is_loopback_host(request) and not origins.is_forwarded(request)
        )

    def _visit(self, request: web.Request, session: Session, viewer: Viewer, calls: Calls) -> Visit:
        return Visit(
            request,
            session,
            viewer,
            calls,
            self._settings.clock.now(),
            self._templates,
            self._shared,
            request.get(_FORM, NO_FORM),
        )

    # --- sign-in ---

    async def _signin_page(self, request: web.Request) -> web.StreamResponse:
        session = request[_SESSION]
        if session is not None and session.is_signed_in and "ended" not in request.query:
            return see_other(signin.next_path(request.query.get("next", "")))
        if session is None or session.is_signed_in:
            session = self._settings.sessions.new(self._settings.clock.now())
        response = signin.page(
            self._templates, session, request.query.get("next", ""), ended="ended" in request.query
        )
        cookies.write(request, response, self._settings.sessions.cookie(session))
        return response

    async def _sign_in(self, request: web.Request) -> web.StreamResponse:
        form, guest = request[_FORM], request[_SESSION]
        assert guest is not None, "a post without a session was refused before"
        key = str(form.get("key", "")).strip()
        path = str(form.get("next", ""))
        client = client_of(request, self._settings.proxies)
        if wait := math.ceil(self._attempts.take(client)):
            problem = signin.TOO_MANY.format(wait)
            response = signin.page(self._templates, guest, path, problem=problem, status=429)
            response.headers[hdrs.RETRY_AFTER] = str(wait)
            return response
        problem, refused = signin.problem_of(key), False
        viewer = None
        if not problem:
            try:
                viewer = await self._viewers.of(Calls(self._api, key), key)
            except ApiError as error:
                problem, refused = signin.refusal(error), error.code is grpc.StatusCode.UNAUTHENTICATED
        if not refused:
            self._attempts.give_back(client)
        if viewer is not None and not viewer.may_read:
            problem = signin.NO_READER
        if problem:
            return signin.page(self._templates, guest, path, problem=problem, status=403)
        # A new id and a new token: what somebody knew of the session before is worth nothing now.
        session = self._settings.sessions.new(self._settings.clock.now(), key)
        response = see_other(signin.next_path(path))
        cookies.write(request, response, self._settings.sessions.cookie(session))
        return response

    async def _sign_out(self, request: web.Request) -> web.StreamResponse:
        session = request[_SESSION]
        if session is not None and session.is_signed_in:  # those of guests would crowd out the others
            self._settings.sessions.sign_out(session, self._settings.clock.now())
        response = see_other("/signin?ended=1")
        cookies.remove(request, response)
        return response

    def _to_signin(self, request: web.Request, *, ended: bool) -> web.Response:
        path = request.path_qs if request.method == hdrs.METH_GET and not request.headers.get("X-Fragment") else ""
        response = see_other(link("/signin", next=path if path != "/" else "", ended="1" if ended else ""))
        if request.headers.get("X-Fragment"):  # the script goes there itself
            response = web.Response(status=401, headers={"X-Signin": "/signin?ended=1"})
        return response

    # --- the rest ---

    def _problem(self, request: web.Request, problem: problems.Problem) -> web.Response:
        session = request.get(_SESSION)
        return problems.page(self._templates, problem, session, is_fragment=bool(request.headers.get("X-Fragment")))

    async def _static(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if self._templates.globals["static"].get(name) != request.path:  # type: ignore[attr-defined]
            raise web.HTTPNotFound
        return web.FileResponse(STATIC / name, headers={hdrs.CACHE_CONTROL: "public, max-age=31536000, immutable"})


async def _healthz(request: web.Request) -> web.Response:
    return web.Response(text="alive\n")
