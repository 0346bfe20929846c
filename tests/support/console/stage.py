"""A server, a notifier and the console in this process, with the scenario and keys of all kinds."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
from aiohttp import web

from console.process import Listening, Server
from console.process import running as running_console
from notifier.process import run_until
from runtime.clock import ManualClock
from runtime.configuration import Configuration
from store.identity import keys
from store.identity.keys import KeySettings
from store.identity.roles import Role
from store.postgres.database import Database
from tests.support.console import scenario
from tests.support.console.html import Element, parse
from tests.support.server.running import SECRET_KEYS, UNARY_DEADLINE, running

DAYS = 20  # of usage before now
SECRET = b"the tests of the console, no one"


@dataclass
class Page:
    """An answer of the console."""

    status: int
    headers: Mapping[str, str]
    text: str
    url: str

    @property
    def tree(self) -> Element:
        """Its elements."""
        return parse(self.text)

    @property
    def main(self) -> str:
        """The text of its content."""
        return self.tree.first("main").text

    @property
    def csrf(self) -> str:
        """The token of its forms."""
        return self.tree.first("input", name="csrf").attributes["value"]


class Visitor:
    """A browser without a screen: cookies, pages, forms."""

    def __init__(self, base: str, session: aiohttp.ClientSession) -> None:
        self.base = base
        self.session = session

    async def get(self, path: str, *, follow: bool = True, **headers: str) -> Page:
        """A page."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.get(self.base + path, headers=given, allow_redirects=follow) as answer:
            return Page(answer.status, answer.headers, await answer.text(), str(answer.url.relative()))

    async def post(self, path: str, fields: Any, *, follow: bool = True, **headers: str) -> Page:
        """The answer to a form."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.post(self.base + path, data=fields, headers=given, allow_redirects=follow) as answer:
            return Page(answer.status, answer.headers, await answer.text(), str(answer.url.relative()))

    async def sign_in(self, key: str) -> Page:
        """The answer to the sign-in; the page that comes after it is not read."""
        page = await self.get("/signin")
        return await self.post("/signin", {"csrf": page.csrf, "key": key, "next": "/"}, follow=False)


@dataclass
class Stage:
    """What runs. keys: by their kind: admin, editor, reader, ingester, customer, other (of another organization)."""

    base: str
    server_port: int
    clock: ManualClock
    made: scenario.Made
    keys: dict[str, str] = field(default_factory=dict)
    sessions: list[aiohttp.ClientSession] = field(default_factory=list)
    visitors: dict[str, Visitor] = field(default_factory=dict)

    async def visitor(self, kind: str = "") -> Visitor:
        """The visitor that is signed in with a key of that kind; empty: another one, who is not signed in."""
        if kind not in self.visitors:
            return await self.new_visitor(kind)
        return self.visitors[kind]

    async def new_visitor(self, kind: str = "") -> Visitor:
        """A visitor with a session of its own."""
        session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
        self.sessions.append(session)
        visitor = Visitor(self.base, session)
        if kind:
            page = await visitor.sign_in(self.keys[kind])
            assert page.status == 303, page.text
            self.visitors.setdefault(kind, visitor)
        return visitor


@asynccontextmanager
async def stage(
    url: str, *, with_notifier: bool = False, for_pictures: bool = False, days: int = DAYS
) -> AsyncIterator[Stage]:
    """Starts everything on an empty database.

    with_notifier: and sends notifications to two receivers. for_pictures: has more usage, and leaves the time of
    `scenario.traffic`, after which the clock shows the real time: what waits in the database is compared with that.
    """
    lead = scenario.TRAFFIC if for_pictures else timedelta()
    clock = ManualClock(datetime.now(UTC).replace(microsecond=0) - timedelta(days=days) - lead)
    database, notifier_pool = Database(url), Database(url, pool_size=4)
    configuration = Configuration(
        listen_port=0,
        propagation_delay=0.0,
        unary_deadline=UNARY_DEADLINE,
        secret_keys=SECRET_KEYS,
        webhook_allow_http=True,
        webhook_allow_networks=(ipaddress.ip_network("127.0.0.0/8"),),
    )
    made_keys = await _keys(database, clock)
    try:
        async with (
            running(database, clock, configuration=configuration) as server,
            _receivers(with_notifier) as urls,
        ):
            metadata = (("authorization", f"Bearer {made_keys['admin']}"),)
            made = await scenario.make(server.channel, metadata, clock, urls=urls, days=days, with_calls=for_pictures)
            listening = Listening("127.0.0.1", 0)
            address = Server(f"127.0.0.1:{server.port}")
            async with (
                _notifier(configuration, notifier_pool, clock, with_notifier),
                running_console(address, listening, clock, SECRET) as port,
            ):
                found = Stage(f"http://127.0.0.1:{port}", server.port, clock, made, made_keys)
                try:
                    yield found
                finally:
                    for session in found.sessions:
                        await session.close()
    finally:
        await database.close()
        await notifier_pool.close()


async def _keys(database: Database, clock: ManualClock) -> dict[str, str]:
    found = {}
    async with database.transaction() as connection:
        for kind, organization, settings in (
            ("admin", "acme-inc", KeySettings(roles=frozenset({Role.ADMIN}), display_name="Ann")),
            ("editor", "acme-inc", KeySettings(roles=frozenset({Role.EDITOR}), display_name="Ed")),
            ("reader", "acme-inc", KeySettings(roles=frozenset({Role.READER}), display_name="Rea")),
            ("ingester", "acme-inc", KeySettings(roles=frozenset({Role.INGESTER}))),
            ("customer", "acme-inc", KeySettings(roles=frozenset({Role.READER}), customer_id="acme")),
            ("other", "other-inc", KeySettings(roles=frozenset({Role.ADMIN}))),
        ):
            found[kind] = (await keys.create_key(connection, organization, clock.now(), settings)).key
    return found


@asynccontextmanager
async def _receivers(wanted: bool) -> AsyncIterator[list[str]]:
    """The URLs of two receivers, of which the second one fails."""
    if not wanted:
        yield []
        return

    async def accept(_: web.Request) -> web.Response:
        return web.Response(text="thank you")

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=503, text="the chat is down for maintenance")

    application = web.Application()
    application.router.add_post("/ok", accept)
    application.router.add_post("/down", refuse)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield [f"{base}/ok", f"{base}/down"]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _notifier(
    configuration: Configuration, database: Database, clock: ManualClock, wanted: bool
) -> AsyncIterator[None]:
    if not wanted:
        yield
        return
    stop = asyncio.Event()
    task = asyncio.create_task(run_until(stop, configuration, database, clock, poll_interval=0.2))
    try:
        yield
    finally:
        stop.set()
        await task
