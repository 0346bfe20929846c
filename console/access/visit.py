"""One request of a visitor: its session, its calls, its page."""

from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import grpc
from aiohttp import web
from google.protobuf.message import Message
from jinja2 import Environment
from multidict import MultiDict, MultiDictProxy

from console.access.api import Api, ApiError, Calls, Method
from console.access.identity import Viewer
from console.access.posts import Form
from console.access.sessions import Session
from console.access.shared_reads import SharedReads

NO_FORM: Form = MultiDictProxy(MultiDict())


@dataclass
class Visit:
    """What a page has to do with. form: of a post; its token was checked."""

    request: web.Request
    session: Session
    viewer: Viewer
    calls: Calls
    now: datetime
    templates: Environment
    shared: SharedReads
    form: Form = field(default_factory=lambda: NO_FORM)

    @property
    def api(self) -> Api:
        """The stubs, for `calls`."""
        return self.calls.api

    def query(self, name: str) -> str:
        """A parameter of the address, without blanks at its ends; empty if it is not given."""
        return self.request.query.get(name, "").strip()

    def sent(self, name: str) -> str:
        """A field of the form, without blanks at its ends."""
        return self.form.get(name, "").strip()

    async def optional(self, call: Awaitable[Any]) -> Any:
        """The answer of a call; None if the key may not make it, or the server is too old for it."""
        try:
            return await call
        except ApiError as error:
            if error.code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED):
                return None
            raise

    async def share(self, method: Method[Any, Any], request: Message, lifetime: float) -> Any:
        """As `optional`, of an answer that viewers with the same key share for `lifetime` seconds."""
        name = f"{type(request).__name__} {request.SerializeToString(deterministic=True).hex()}"
        return await self.shared.get(
            self.session.key, name, lifetime, lambda: self.optional(self.calls(method, request))
        )

    @property
    def is_fragment(self) -> bool:
        """Whether the script asks for a part of the page."""
        return self.request.headers.get("X-Fragment") == "1"

    def render(self, template: str, status: int = 200, **values: Any) -> web.Response:
        """A page from a template."""
        return web.Response(
            text=self.templates.get_template(template).render(visit=self, now=self.now, **values),
            status=status,
            content_type="text/html",
            charset="utf-8",
        )


def see_other(location: str) -> web.Response:
    """After a post: the browser shows the page at `location`."""
    return web.Response(status=303, headers={"Location": location})
