"""From where requests come: other sites, other names of this machine, proxies, other consoles on it; TLS."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from console.access.cookies import COOKIE
from console.access.origins import is_loopback_host
from console.process import Listening, Server, running
from runtime.clock import SystemClock
from tests.support.console.fake_server import EXPLAIN, KEY, one_key, visiting
from tests.support.console.stage import Visitor
from tests.support.server.certificates import Authority


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example:50080"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": ""},
        {"X-Forwarded-For": "203.0.113.9"},
        {"X-Forwarded-Proto": "https"},
        {"Forwarded": "for=203.0.113.9"},
        {"Via": "1.1 proxy"},
    ],
)
async def test_who_may_be_on_another_machine_needs_a_key_where_none_is_needed(headers: Mapping[str, str]) -> None:
    """A page of another site can resolve its own name to this machine; a proxy on it can have clients elsewhere."""
    async with one_key(None) as target, visiting(target, allows_no_key=True) as visitor:
        async with visitor.session.get(visitor.base + EXPLAIN, headers=headers) as answer:
            assert str(answer.url.relative()).startswith("/signin?")
        own = await visitor.get(EXPLAIN)
        assert (own.url, own.status) == (EXPLAIN, 200)
        # With the session of this machine, which a browser would not send there.
        async with visitor.session.get(visitor.base + EXPLAIN, headers=headers) as answer:
            assert str(answer.url.relative()).startswith("/signin?")
        async with visitor.session.post(
            f"{visitor.base}/alerts/new", headers=headers, data={"csrf": "x"}, allow_redirects=False
        ) as answer:
            assert answer.status in (303, 403)


def test_names_of_this_machine() -> None:
    class Request:
        def __init__(self, host: str) -> None:
            self.headers = {"Host": host}

    for host in ("localhost:80", "127.0.0.1:50080", "[::1]:50080", "127.0.0.1", "localhost"):
        assert is_loopback_host(Request(host)), host  # type: ignore[arg-type]
    for host in (
        "evil.example:50080",
        "localhost.evil.example",
        "10.0.0.1",
        "127.0.0.1@evil.example",
        "",
        "[",
        "a b",
    ):
        assert not is_loopback_host(Request(host)), host  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("site", "mode", "kind", "status"),
    [
        ("cross-site", "no-cors", "script", 403),
        ("cross-site", "navigate", "iframe", 403),
        ("same-site", "cors", "empty", 403),
        ("cross-site", "navigate", "document", 200),
        ("same-origin", "cors", "empty", 200),
        ("none", "navigate", "document", 200),
    ],
)
async def test_pages_of_other_sites_may_link_to_a_page_and_nothing_else(
    site: str, mode: str, kind: str, status: int
) -> None:
    headers: Any = {"Sec_Fetch_Site": site, "Sec_Fetch_Mode": mode, "Sec_Fetch_Dest": kind}
    async with one_key(None) as target, visiting(target, allows_no_key=True) as visitor:
        for path in (EXPLAIN, "/nothing"):
            expected = 404 if status == 200 and path == "/nothing" else status
            assert (await visitor.get(path, **headers)).status == expected


async def test_a_form_of_another_origin_is_refused() -> None:
    async with one_key(KEY) as target, visiting(target) as visitor:
        await visitor.sign_in(KEY)
        token = (await visitor.get(EXPLAIN)).csrf
        for origin in ("null", "http://evil.example", "http://127.0.0.1:1", "http://[", "http://localhost"):
            assert (await visitor.post("/signout", {"csrf": token}, Origin=origin)).status == 403, origin
        assert (await visitor.post("/signout", {"csrf": token}, Origin=visitor.base, follow=False)).status == 303


async def test_two_consoles_on_one_host_have_a_session_each() -> None:
    async with one_key(KEY) as target, visiting(target) as first, visiting(target) as second:
        second.session = first.session
        for visitor in (first, second):
            assert (await visitor.sign_in(KEY)).status == 303
        assert (await first.get(EXPLAIN)).url == EXPLAIN
        assert len({one.key for one in first.session.cookie_jar}) == 2
        await first.post("/signout", {"csrf": (await first.get(EXPLAIN)).csrf})
        assert (await first.get(EXPLAIN)).url.startswith("/signin")
        assert (await second.get(EXPLAIN)).url == EXPLAIN


async def test_with_tls_the_cookie_is_of_this_host_only_and_never_sent_without_tls(tmp_path: Path) -> None:
    authority = Authority()
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    authority.server().write(certificate, key)
    listening = Listening("127.0.0.1", 0, certificate, key)
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=authority.pem.decode()))
    async with (
        one_key(KEY) as target,
        running(Server(target), listening, SystemClock()) as port,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), connector=connector) as session,
    ):
        visitor = Visitor(f"https://localhost:{port}", session)
        answer = await visitor.sign_in(KEY)
        cookie = answer.headers["Set-Cookie"]
        assert cookie.startswith(f"__Host-{COOKIE}_{port}=")
        for flag in ("HttpOnly", "SameSite=Strict", "Path=/", "Secure"):
            assert flag in cookie.split("; ")
        assert "Domain" not in cookie
        assert (await visitor.get(EXPLAIN)).url == EXPLAIN
        assert "Strict-Transport-Security" not in answer.headers, "it would hold for every port of this machine"
        elsewhere = await visitor.get("/signin", Host="console.example")
        assert elsewhere.headers["Strict-Transport-Security"] == "max-age=31536000"
