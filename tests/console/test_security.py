"""What the console must not do: other keys, other sites, other texts than it was given."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from yarl import URL

from console.access.cookies import COOKIE
from console.access.posts import MAX_FIELDS
from console.pages.alert_form import MOST_ITEMS
from tests.support.console.odd_texts import EVIL, evil_texts
from tests.support.console.stage import Stage, stage
from tests.support.databases import Template


@pytest.fixture(scope="module")
async def console(template: Template) -> AsyncIterator[Stage]:
    """A stage with few days of usage, which is enough here."""
    with template.lent_database() as url:
        async with stage(url, days=8) as found:
            yield found


async def test_without_a_key_nothing_is_shown_and_the_page_comes_after_the_sign_in(console: Stage) -> None:
    visitor = await console.visitor()
    page = await visitor.get("/customer?id=acme")
    assert page.url.startswith("/signin?next=")
    assert "acme" not in page.main
    sent = {"csrf": page.csrf, "key": console.keys["reader"], "next": "/customer?id=acme"}
    assert "Acme Robotics" in (await visitor.post("/signin", sent)).main


@pytest.mark.parametrize(
    "path", ["//evil.example", "https://evil.example", "/\\evil.example", "/signin", "javascript:1"]
)
async def test_a_sign_in_leads_to_pages_of_this_console_only(console: Stage, path: str) -> None:
    visitor = await console.visitor()
    page = await visitor.get("/signin")
    sent = {"csrf": page.csrf, "key": console.keys["reader"], "next": path}
    answer = await visitor.post("/signin", sent, follow=False)
    assert (answer.status, answer.headers["Location"]) == (303, "/")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("tmk_unknown", "does not accept this key"),
        ("", "Enter an API key"),
        ("two words", "This is not an API key"),
        ("ingester", "can only send usage"),
    ],
)
async def test_a_key_that_is_refused_is_told_so(console: Stage, key: str, text: str) -> None:
    page = await (await console.visitor()).sign_in(console.keys.get(key, key))
    assert page.status == 403
    assert text in page.main
    assert page.tree.first("input", name="key").attributes.get("value", "") == ""


async def test_the_cookie_is_strict_and_closed_and_does_not_show_the_key(console: Stage) -> None:
    visitor = await console.visitor()
    page = await visitor.get("/signin")
    sent = {"csrf": page.csrf, "key": console.keys["reader"]}
    answer = await visitor.post("/signin", sent, follow=False)
    cookie = answer.headers["Set-Cookie"]
    for flag in ("HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"):
        assert flag in cookie
    assert "Secure" not in cookie, "this console has no TLS"
    assert console.keys["reader"] not in cookie
    behind_tls = await (await console.visitor()).get("/signin", X_Forwarded_Proto="https")
    assert behind_tls.headers["Set-Cookie"].startswith(f"__Host-{COOKIE}_{URL(console.base).port}=")
    assert "Secure" in behind_tls.headers["Set-Cookie"]


async def test_a_signed_out_session_is_worth_nothing(console: Stage) -> None:
    visitor = await console.visitor()
    await visitor.sign_in(console.keys["reader"])
    page = await visitor.get("/customers")
    [cookie] = list(visitor.session.cookie_jar)
    ended = await visitor.post("/signout", {"csrf": page.csrf})
    assert "You are signed out" in ended.main
    stolen = await console.visitor()
    stolen.session.cookie_jar.update_cookies({cookie.key: cookie.value})
    assert (await stolen.get("/customers")).url.startswith("/signin")


async def test_a_forged_cookie_is_ignored(console: Stage) -> None:
    for value in ("x", "A" * 200, "=" * 40, "A" * 5_000):
        visitor = await console.visitor()
        visitor.session.cookie_jar.update_cookies({f"{COOKIE}_{URL(console.base).port}": value})
        assert (await visitor.get("/customers")).url.startswith("/signin")


async def test_a_session_ends(console: Stage) -> None:
    visitor = await console.visitor()
    await visitor.sign_in(console.keys["reader"])
    console.clock.advance(timedelta(hours=12))
    try:
        assert (await visitor.get("/customers")).url.startswith("/signin")
    finally:
        console.clock.advance(timedelta(hours=-12))


async def test_every_answer_forbids_frames_scripts_of_others_and_guesses(console: Stage) -> None:
    visitor = await console.visitor("reader")
    for path in ("/", "/signin", "/nothing", "/customers"):
        headers = (await visitor.get(path)).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Cache-Control"] == "no-store"
    page = await visitor.get("/customers")
    for tag, name in (("script", "src"), ("link", "href"), ("img", "src")):
        for element in page.tree.all(tag):
            assert element.attributes[name].startswith("/static/"), "nothing is loaded from elsewhere"
            asset = await visitor.get(element.attributes[name])
            assert asset.status == 200
            assert "immutable" in asset.headers["Cache-Control"]
    assert not [one for one in page.tree.all("script") if one.text]


POSTS = (
    "/alerts/new",
    "/alerts/{alert}/edit",
    "/alerts/{alert}/enable",
    "/alerts/{alert}/disable",
    "/alerts/{alert}/archive",
    "/notifications/ntf_x/redeliver",
    "/endpoints",
    "/endpoints/whe_x/test",
    "/endpoints/whe_x/recover",
    "/endpoints/whe_x/rotate",
    "/endpoints/whe_x/enable",
    "/endpoints/whe_x/disable",
    "/signout",
)


@pytest.mark.parametrize("path", POSTS)
async def test_a_post_without_the_token_of_the_session_is_refused(console: Stage, path: str) -> None:
    visitor, other = await console.visitor("admin"), await console.visitor("editor")
    path = path.format(alert=console.made.alerts["spend"])
    foreign = (await other.get("/customers")).csrf
    own = (await visitor.get("/customers")).csrf
    cases: tuple[tuple[str, dict[str, Any]], ...] = (
        ("", {}),
        (foreign, {}),
        ("ü", {}),
        (own, {"Sec_Fetch_Site": "cross-site"}),
        (own, {"Origin": "https://evil.example"}),
    )
    for token, headers in cases:
        answer = await visitor.post(path, {"csrf": token, "action": "save"}, **headers)
        assert answer.status == 403
        assert "The form was refused" in answer.main
    assert (await visitor.get("/customers")).status == 200, "and the session goes on"


@pytest.mark.parametrize("path", POSTS[:-1])
async def test_a_key_that_only_reads_changes_nothing(console: Stage, path: str) -> None:
    visitor = await console.visitor("reader")
    token = (await visitor.get("/customers")).csrf
    alert = console.made.alerts["spend"]
    before = (await visitor.get(f"/alerts/{alert}")).main
    sent = {"csrf": token, "action": "save", "url": "https://example.com/x", "endpoint_id": "whe_x", "condition": ""}
    answer = await visitor.post(path.format(alert=alert), sent)
    assert answer.status == 403, answer.main
    assert (await visitor.get(f"/alerts/{alert}")).main == before


@pytest.mark.parametrize("kind", ["reader", "customer"])
async def test_who_may_not_save_an_alert_gets_no_form_of_one(console: Stage, kind: str) -> None:
    visitor = await console.visitor(kind)
    for path in ("/alerts/new", f"/alerts/{console.made.alerts['spend']}/edit"):
        page = await visitor.get(path)
        assert page.status == 403
        assert "may not do that" in page.main


@pytest.mark.parametrize("line", ["Cookie : tidemark_console=hidden", "Cookie: tidemark_console=hidden\x01"])
async def test_a_request_that_cannot_be_parsed_leaves_no_session_in_the_log(
    console: Stage, caplog: pytest.LogCaptureFixture, line: str
) -> None:
    url = URL(console.base)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(f"GET / HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n".encode())
    assert b" 400 " in await reader.readline()
    writer.close()
    assert "hidden" not in caplog.text
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


@pytest.mark.parametrize("path", POSTS[:-1])
async def test_a_key_of_one_customer_changes_nothing(console: Stage, path: str) -> None:
    visitor = await console.visitor("customer")
    sent = {"csrf": (await visitor.get("/explain")).csrf, "action": "save", "endpoint_id": "whe_x"}
    answer = await visitor.post(path.format(alert=console.made.alerts["spend"]), sent)
    assert answer.status == 403, answer.main


@pytest.mark.parametrize(
    "odd", ["a/b", "../../signin", "%", "a%2Fb", "\x00", "é", "\U0001f30a", "'; DROP TABLE alert; --", "x" * 3_000]
)
async def test_odd_ids_are_ids_that_do_not_exist(console: Stage, odd: str) -> None:
    visitor = await console.visitor("admin")
    name = quote(odd, safe="")
    for path in (
        f"/alerts/{name}",
        f"/alerts/{name}/edit",
        f"/notifications/{name}",
        f"/deliveries/{name}",
        f"/endpoints/{name}",
        f"/customer?id={name}",
        f"/explain?alert={name}&customer={name}&at={name}&subscription={name}",
    ):
        page = await visitor.get(path)
        assert page.status in (400, 404), (path, page.main)


@pytest.mark.parametrize(
    "odd", ["%00", "%ff", "%ed%a0%80", "9" * 5_000, "%D9%A3", "-1", "%F0%9F%8C%8A", "0001-01-01", "9999-12-31T23:59"]
)
async def test_odd_filters_are_refused_or_find_nothing(console: Stage, odd: str) -> None:
    visitor = await console.visitor("editor")
    token = (await visitor.get("/endpoints")).csrf
    alert = console.made.alerts["spend"]
    for path in (
        f"/customers?q={odd}",
        f"/customers?plan={odd}&page={odd}",
        f"/customer?id=acme&alerts={odd}",
        f"/alerts?type={odd}&state={odd}",
        f"/alerts?q={odd}",
        f"/alerts?label={odd}%3D{odd[:200]}",
        f"/alerts/{alert}?others={odd}",
        f"/notifications?type={odd}&customer={odd[:200]}",
        f"/explain?alert={alert}&customer=acme&at={odd}",
        f"/signin?next={odd}",
    ):
        page = await visitor.get(path)
        assert page.status in (200, 400, 404), (path, page.main)
    fields = {"csrf": token, "condition": "usage_exceeded", "action": "reload", "thresholds.0.severity": "99"}
    posted = await visitor.post("/alerts/new", {**fields, "thresholds.0.notify_on": "999999999", "display_name": odd})
    assert posted.status == 200


async def test_a_form_has_a_bounded_number_of_fields(console: Stage) -> None:
    visitor = await console.visitor("editor")
    token = (await visitor.get("/customers")).csrf
    sent = [("csrf", token), ("condition", "usage_exceeded"), ("action", "preview")]
    many = await visitor.post("/alerts/new", [*sent, *(("x", "") for _ in range(MAX_FIELDS))])
    assert many.status == 400
    assert "The form cannot be read" in many.main
    items = [(f"thresholds.{number}.value", "1") for number in range(MOST_ITEMS + 1)]
    large = await visitor.post("/alerts/new", [*sent, *items])
    assert large.status == 409
    assert "too large for a form" in large.main


async def test_a_sign_in_begins_another_session(console: Stage) -> None:
    """A cookie that somebody has put into a browser before its owner signs in is worth nothing afterwards."""
    attacker, victim = await console.visitor(), await console.visitor()
    page = await attacker.get("/signin")
    [cookie] = list(attacker.session.cookie_jar)
    victim.session.cookie_jar.update_cookies({cookie.key: cookie.value})
    sent = {"csrf": page.csrf, "key": console.keys["reader"], "next": "/"}
    assert (await victim.post("/signin", sent, follow=False)).status == 303
    assert (await attacker.get("/customers")).url.startswith("/signin")
    forged = await victim.post("/alerts/new", {"csrf": page.csrf, "action": "reload"})
    assert forged.status == 403, "the token of before is not that of the session"


async def test_a_key_that_only_reads_sees_no_buttons(console: Stage) -> None:
    visitor = await console.visitor("reader")
    paths = (
        f"/alerts/{console.made.alerts['spend']}",
        "/alerts",
        "/endpoints",
        "/notifications",
        "/customer?id=acme",
    )
    for path in paths:
        page = await visitor.get(path)
        forms = [one for one in page.tree.all("form") if one.attributes.get("method") == "post"]
        assert [one.attributes["action"] for one in forms] == ["/signout"], path
    assert "Save" not in (await visitor.get("/alerts/new")).main.replace("not save", "").replace("saved", "")


async def test_an_editor_rotates_no_secret(console: Stage) -> None:
    visitor = await console.visitor("editor")
    token = (await visitor.get("/customers")).csrf
    answer = await visitor.post("/endpoints/whe_x/rotate", {"csrf": token})
    assert answer.status == 403
    assert "This key may not do that" in answer.main


async def test_another_organization_sees_nothing(console: Stage) -> None:
    visitor = await console.visitor("other")
    alert = console.made.alerts["spend"]
    for path in (
        "/customer?id=acme",
        f"/alerts/{alert}",
        f"/alerts/{alert}/edit",
        f"/explain?alert={alert}&customer=acme",
    ):
        page = await visitor.get(path)
        assert page.status == 404, path
        assert "Acme Robotics" not in page.text
        assert "Spend of every customer" not in page.text
    for path in ("/", "/customers", "/alerts", "/notifications", "/overview/live"):
        assert "acme" not in (await visitor.get(path)).text.replace("acme-inc", ""), path
    token = (await visitor.get("/customers")).csrf
    for action in ("enable", "disable", "archive"):
        assert (await visitor.post(f"/alerts/{alert}/{action}", {"csrf": token})).status == 404


async def test_shared_answers_are_those_of_the_own_key(console: Stage) -> None:
    reader, other = await console.visitor("reader"), await console.visitor("other")
    for _ in range(3):
        assert "Spend of every customer" in (await reader.get("/overview/live")).text
        assert "Spend of every customer" not in (await other.get("/overview/live")).text


async def test_a_key_of_one_customer_sees_that_customer_only(console: Stage) -> None:
    visitor = await console.visitor("customer")
    assert (await visitor.get("/")).url == "/customer?id=acme"
    page = await visitor.get("/customer?id=acme")
    assert page.status == 200
    assert "Spend of every customer" in page.main
    assert (await visitor.get("/customer?id=globex")).status == 403
    for path in ("/alerts", "/endpoints", f"/alerts/{console.made.alerts['spend']}"):
        assert (await visitor.get(path)).status == 403, path
    listed = await visitor.get("/notifications?customer=globex")
    assert "globex" not in listed.main
    links = [
        one.attributes["href"] for one in listed.tree.all("a") if "/notifications/ntf_" in one.attributes["href"]
    ]
    assert (await visitor.get(links[0])).status == 200
    reader = await console.visitor("reader")
    theirs = await reader.get("/notifications?customer=globex")
    link = next(one.attributes["href"] for one in theirs.tree.all("a") if "/ntf_" in one.attributes["href"])
    assert (await visitor.get(link)).status == 404
    assert (await visitor.get(f"/explain?alert={console.made.alerts['spend']}")).status == 200


async def test_texts_of_users_are_texts_and_nothing_else(console: Stage) -> None:
    alert_id, name = await evil_texts(console), quote(EVIL, safe="")
    visitor = await console.visitor("admin")
    listed = await visitor.get(f"/notifications?customer={name}")
    link = next(one.attributes["href"] for one in listed.tree.all("a") if "/ntf_" in one.attributes["href"])
    seen = 0
    for path in (
        "/",
        f"/customers?q={name}",
        f"/customers?plan={name}",
        f"/customer?id={name}",
        "/alerts",
        f"/alerts?q={name}&customer={name}&label={name}",
        f"/alerts/{alert_id}",
        f"/alerts/{alert_id}/edit",
        f"/notifications?customer={name}",
        link,
        f"/explain?alert={alert_id}&customer={name}",
        f"/explain?alert={name}&customer={name}&at={name}",
        f"/signin?next=/{name}",
        f"/{name}",
    ):
        page = await visitor.get(path)
        assert page.status in (200, 400, 404), (path, page.main)
        assert "<script>alert" not in page.text, path
        assert "<img src=x" not in page.text, path
        assert "onerror=" not in page.text.replace("onerror=alert(2)&gt;", ""), path
        assert not page.tree.all("img"), path
        seen += "&lt;script&gt;alert(1)" in page.text
    assert seen >= 8, "the texts are shown, as texts"
