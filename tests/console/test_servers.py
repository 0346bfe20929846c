"""The console before a server that is away, slow or refuses: what it shows, and what strangers may send."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from multidict import CIMultiDict

from console.access import attempts, posts
from console.access.attempts import MOST_REFUSED, WINDOW, Attempts, client_of, networks_of
from tests.support.console.fake_server import KEY, one_key, visiting
from tests.support.console.stage import Visitor


@pytest.fixture
async def visitor() -> AsyncIterator[Visitor]:
    """Somebody at the console of the server above."""
    async with one_key(KEY) as target, visiting(target) as found:
        yield found


@pytest.mark.parametrize("path", ["/", "/overview/live", "/customer?id=acme", "/alerts/alt_x", "/endpoints"])
async def test_a_server_that_takes_too_long_is_named_as_the_cause(visitor: Visitor, path: str) -> None:
    await visitor.sign_in(KEY)
    page = await visitor.get(path)
    assert page.status == 504
    assert "The server took too long" in page.main


async def test_a_server_that_is_away_is_named_as_the_cause() -> None:
    async with visiting("127.0.0.1:1", allows_no_key=True) as visitor:
        for path in ("/", "/customers", "/overview/live"):
            page = await visitor.get(path)
            assert page.status == 503, path
            assert "The server does not answer" in page.main
            assert "127.0.0.1:1" in page.main, "and which one"
        part = await visitor.get("/overview/live", X_Fragment="1")
        assert part.status == 503
        assert "<html" not in part.text
        signin = await visitor.sign_in(KEY)
        assert "The server does not answer" in signin.main


async def test_after_many_wrong_keys_an_address_has_to_wait(visitor: Visitor) -> None:
    answers = [await visitor.sign_in(f"tmk_{number}") for number in range(MOST_REFUSED)]
    assert {one.status for one in answers} == {403}
    for key in ("tmk_another", KEY):
        page = await visitor.sign_in(key)
        assert page.status == 429
        assert 1 <= int(page.headers["Retry-After"]) <= WINDOW
        assert "Too many keys were refused" in page.main


async def test_many_wrong_keys_at_once_are_as_many_as_one_after_another(visitor: Visitor) -> None:
    token = (await visitor.get("/signin")).csrf
    tries = [visitor.post("/signin", {"csrf": token, "key": f"tmk_{number}"}) for number in range(3 * MOST_REFUSED)]
    statuses = [one.status for one in await asyncio.gather(*tries)]
    assert statuses.count(403) == MOST_REFUSED
    assert statuses.count(429) == 2 * MOST_REFUSED


async def test_keys_that_are_accepted_and_forms_without_a_key_do_not_count(visitor: Visitor) -> None:
    for _ in range(MOST_REFUSED + 1):
        assert (await visitor.sign_in(KEY)).status == 303
        visitor.session.cookie_jar.clear()
        assert (await visitor.sign_in("no key")).status == 403


def test_tries_are_counted_for_a_minute_and_for_so_many_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "MAX_REMEMBERED", 3)
    now = 100.0
    counted = Attempts(lambda: now)
    assert [counted.take("a") for _ in range(MOST_REFUSED)] == [0.0] * MOST_REFUSED
    now += 10
    assert counted.take("a") == WINDOW - 10
    assert counted.take("b") == 0.0
    counted.give_back("a")
    assert counted.take("a") == 0.0
    now += WINDOW
    assert counted.take("a") == 0.0
    for other in ("c", "d", "e"):
        counted.take(other)
    assert len(counted._refused) == 3


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", "198.51.100.7", "192.0.2.1"),
        ("10.0.0.1", "192.0.2.9, 198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "nonsense", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("::ffff:10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("2001:db8::1:2:3:4", "", "2001:db8::/64"),
        ("", "", ""),
    ],
)
def test_the_client_is_the_peer_or_whom_a_trusted_proxy_names(peer: str, forwarded: str, client: str) -> None:
    class Request:
        remote = peer
        headers = CIMultiDict({"X-Forwarded-For": forwarded})

    proxies = networks_of(("10.0.0.0/8", "spiffe://acme.test/gateway"))
    assert client_of(Request(), proxies) == client  # type: ignore[arg-type]


async def test_a_stranger_sends_no_large_form(visitor: Visitor) -> None:
    token = (await visitor.get("/signin")).csrf
    large = await visitor.post("/signin", {"csrf": token, "key": "x" * posts.MAX_GUEST_BYTES})
    assert large.status == 413
    many = await visitor.post("/signin", [("csrf", token), *(("a", "") for _ in range(posts.MAX_GUEST_FIELDS))])
    assert many.status == 400
    assert "The form cannot be read" in many.main


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("csrf=%ff", posts.FORM),
        ("csrf=ü", posts.FORM),
        ('{"csrf": ""}', "application/json"),
        ("--x\r\n", "multipart/form-data; boundary=x"),
        ("csrf=a", f"{posts.FORM}; charset=nonsense"),
    ],
)
async def test_what_is_no_form_is_refused(visitor: Visitor, body: str, kind: str) -> None:
    await visitor.get("/signin")
    answer = await visitor.post("/signin", body.encode(), Content_Type=kind)
    assert answer.status in (400, 403)
    assert "could not be made" not in answer.main
