"""Each page, against a real server, and in a real Chromium: accessibility, keyboard, small screens, live parts."""

import re
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from console.access.api import ApiError, Calls
from generated.tidemark.v1.account_service_pb2 import GetBalanceSeriesRequest
from generated.tidemark.v1.alert_service_pb2 import GetCustomerAlertSeriesRequest
from tests.support.console.browser import NARROW, WIDE, axe, browser, tab, why_no_browser
from tests.support.console.stage import Stage

needs_browser = pytest.mark.skipif(bool(why_no_browser()), reason=why_no_browser() or "there is a browser")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
DARK_RULES = ["color-contrast"]  # nothing else differs
# Pages with everything that has a colour; contrast takes most of the time of a check.
DARK = {"/", "/customer?id=acme", "/alerts/{spend}", "/alerts/new", "/endpoints"}
PAGES = (
    "/signin",
    "/",
    "/customers",
    "/customer?id=acme",
    "/alerts",
    "/alerts/{spend}",
    "/alerts/new",
    "/alerts/{tokens}/edit",
    "/notifications",
    "/endpoints",
    "/explain?alert={spend}&customer=acme",
    "/nothing",
)


async def test_the_overview_shows_what_is_in_alarm_and_the_latest_notifications(console: Stage) -> None:
    page = await (await console.visitor("reader")).get("/")
    assert page.status == 200
    assert "Spend of every customer" in page.main
    assert page.tree.all("svg", class_="columns"), "usage and notifications have plots"
    assert "acme-inc" in page.tree.first("header").text
    fragment = await (await console.visitor("reader")).get("/overview/live")
    assert "In alarm now" in fragment.text
    assert "<html" not in fragment.text


async def test_customers_are_found_by_prefix_external_id_and_plan(console: Stage) -> None:
    visitor = await console.visitor("reader")
    everybody = (await visitor.get("/customers")).main
    assert "Acme Robotics" in everybody
    assert "Vandelay Industries" in everybody
    found = (await visitor.get("/customers?q=glo")).main
    assert "globex" in found
    assert "acme" not in found
    assert (await visitor.get("/customers?q=crm-0042")).url == "/customer?id=acme"
    of_plan = (await visitor.get("/customers?plan=starter")).main
    assert "initech" in of_plan
    assert "hooli" not in of_plan
    assert "No customer found" in (await visitor.get("/customers?q=nobody")).main


async def test_a_customer_has_gauges_with_bars_and_curves_balances_limits_and_invoices(console: Stage) -> None:
    page = await (await console.visitor("reader")).get("/customer?id=acme")
    assert page.status == 200
    curves = page.tree.all("svg", class_="curve")
    assert len(curves) >= 5, "three alerts on usage, one of them by model, and two balances"
    for curve in curves:
        assert curve.attributes["role"] == "img"
        assert curve.attributes["aria-label"]
        assert curve.all("polyline", class_="line")
    marks = page.tree.all("circle", class_="mark-reached")
    assert marks, "crossings are on the curves"
    assert all("reached" in mark.first("title").text for mark in marks)
    assert page.tree.all("rect", class_="tick-limit"), "a bar shows the limit"
    assert page.tree.all("details", class_="as-table"), "each curve is a table, too"
    for text in ("Annual commit", "Welcome credits", "INV-2002", "tokens-acme", "req-9000", "held"):
        assert text in page.main, text
    assert "$1,180.55" in page.main
    assert re.search(r"used up (in \d+ days|in \d+ h)", page.main), "the burn-down is projected"


@pytest.mark.parametrize("code", [grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED])
async def test_a_customer_is_shown_without_the_curves_that_do_not_come_in_time(
    console: Stage, monkeypatch: pytest.MonkeyPatch, code: grpc.StatusCode
) -> None:
    call = Calls.__call__

    async def late(self: Calls, method: Any, request: Any) -> Any:
        if isinstance(request, GetCustomerAlertSeriesRequest | GetBalanceSeriesRequest):
            raise ApiError(code, "later")
        return await call(self, method, request)

    monkeypatch.setattr(Calls, "__call__", late)
    page = await (await console.visitor("reader")).get("/customer?id=acme")
    assert page.status == 200
    assert not page.tree.all("svg", class_="curve")
    assert page.tree.all("rect", class_="tick-limit")


async def test_alerts_are_filtered(console: Stage) -> None:
    visitor = await console.visitor("reader")
    assert "Prepaid credits are low" in (await visitor.get("/alerts")).main
    by_label = (await visitor.get("/alerts?label=team%3Drevenue")).main
    assert "Commit is running out" in by_label
    assert "Tokens by model" not in by_label
    by_type = (await visitor.get("/alerts?type=12")).main
    assert "Large invoice" in by_type
    assert "Tokens by model" not in by_type.replace("Monthly", "")
    assert "No alert passes the filters" in (await visitor.get("/alerts?q=zzz")).main


async def test_an_alert_says_who_is_in_alarm_who_is_near_and_who_changed_it(console: Stage) -> None:
    page = await (await console.visitor("admin")).get(f"/alerts/{console.made.alerts['tokens']}")
    assert "Notifies when the usage of tokens by every customer on plan pro" in page.main
    assert "50 % of the limit" in page.main
    assert "acme" in page.main
    assert "Created" in page.main
    assert "Ann" in page.main, "the audit log has the name of the key"


async def test_a_notification_shows_its_evidence(console: Stage) -> None:
    visitor = await console.visitor("reader")
    listed = await visitor.get("/notifications?customer=acme")
    path = next(
        one.attributes["href"] for one in listed.tree.all("a") if "/notifications/ntf_" in one.attributes["href"]
    )
    page = await visitor.get(path)
    assert "Evidence" in page.main
    assert "acme-" in page.main, "the crossing event"
    assert "webhook" in page.main


async def test_an_explanation_is_in_sentences(console: Stage) -> None:
    visitor = await console.visitor("reader")
    page = await visitor.get(f"/explain?alert={console.made.alerts['spend']}&customer=acme")
    assert "The alert has notified" in page.main
    assert "The scope of the alert covers the customer" in page.main
    unknown = await visitor.get(f"/explain?alert={console.made.alerts['spend']}&customer=nobody")
    assert unknown.status == 404
    assert "'nobody' not found" in unknown.main


@pytest.mark.parametrize("kind", ["reader", "customer"])
async def test_an_alert_can_be_typed_where_there_are_more_than_can_be_chosen(
    console: Stage, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = await console.visitor(kind)
    assert (await visitor.get("/explain")).tree.all("select", id="alert")
    monkeypatch.setattr("console.pages.explain.CHOICES", 1)
    alert_id = console.made.alerts["spend"]
    page = await visitor.get(f"/explain?alert={alert_id}&customer=acme")
    assert not page.tree.all("select", id="alert")
    assert f'name="alert" value="{alert_id}" list="alerts"' in page.text
    assert page.text.count("<option") == 1


@pytest.mark.parametrize("path", ["/", "/alerts", "/signin"])
async def test_head_is_answered_like_get_without_a_body(console: Stage, path: str) -> None:
    visitor = await console.visitor("reader")
    async with visitor.session.head(visitor.base + path, allow_redirects=False) as answer:
        assert (answer.status, await answer.read()) == ((await visitor.get(path, follow=False)).status, b"")


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/nothing", 404, "There is no such page"),
        ("/alerts/alt_unknown", 404, "This does not exist"),
        ("/customer?id=nobody", 404, "This does not exist"),
        ("/endpoints/whe_unknown", 404, "This does not exist"),
        ("/customers?page=forged", 400, "The server refused the request"),
    ],
)
async def test_an_error_says_what_to_do(console: Stage, path: str, status: int, text: str) -> None:
    page = await (await console.visitor("reader")).get(path)
    assert page.status == status
    assert text in page.main


async def test_every_page_is_well_formed_and_has_landmarks_labels_and_one_heading(console: Stage) -> None:
    visitor = await console.visitor("admin")
    paths = [
        "/",
        "/customers",
        "/customer?id=acme",
        "/alerts",
        "/alerts/new",
        "/notifications",
        "/endpoints",
        "/explain",
    ]
    paths += [f"/alerts/{one}" for one in console.made.alerts.values()]
    paths += [f"/alerts/{console.made.alerts['spend']}/edit"]
    for path in paths:
        tree = (await visitor.get(path)).tree
        assert len(tree.all("h1")) == 1, path
        assert len(tree.all("main", id="main")) == 1, path
        assert tree.all("a", class_="skip", href="#main"), path
        labels = {one.attributes.get("for") for one in tree.all("label")}
        for tag in ("input", "select", "textarea"):
            for one in tree.all(tag):
                if one.attributes.get("type") in ("hidden", "checkbox"):
                    continue
                assert one.attributes.get("id") in labels, f"{path}: {one.attributes}"
        ids = [one.attributes["id"] for one in tree.walk() if "id" in one.attributes]
        assert len(ids) == len(set(ids)), f"{path}: ids occur twice"
        assert not [one for one in tree.walk() if "style" in one.attributes], path


@pytest.fixture(scope="module")
async def chromium() -> AsyncIterator[Any]:
    """One browser for the module."""
    async with browser() as found:
        yield found


def path_of(console: Stage, path: str) -> str:
    """The address of a page."""
    return console.base + path.format(**console.made.alerts)


@needs_browser
async def test_no_page_has_a_fault_of_accessibility_or_is_wider_than_the_screen_and_the_browser_complains_of_nothing(
    console: Stage, chromium: Any
) -> None:
    source, found = axe(), []
    async with tab(chromium, console, "admin") as page:
        for path in PAGES:
            await page.goto(path_of(console, path) + ("?ended=1" if path == "/signin" else ""))
            await page.evaluate(source)
            colours = []
            for scheme, rules in (("light", RULES), ("dark", DARK_RULES)):
                await page.emulate_media(color_scheme=scheme)
                colours.append(await page.evaluate("getComputedStyle(document.body).backgroundColor"))
                if scheme == "dark" and path not in DARK:
                    continue
                answer = await page.evaluate(f"axe.run({{runOnly: {rules}, resultTypes: ['violations']}})")
                for one in answer["violations"]:
                    nodes = [f"{node['html'][:150]} ({node['failureSummary'][:200]})" for node in one["nodes"][:2]]
                    found.append((path, scheme, one["id"], nodes))
            assert colours[0] != colours[1], path
            for width, height in (NARROW, (860, 800)):
                await page.set_viewport_size({"width": width, "height": height})
                too_wide = await page.evaluate(
                    "document.documentElement.scrollWidth - document.documentElement.clientWidth"
                )
                assert too_wide <= 0, (path, width, too_wide)
            await page.set_viewport_size({"width": WIDE[0], "height": WIDE[1]})
            await page.emulate_media(color_scheme="light")
            if path != "/nothing":  # the browser reports its status
                assert page.problems == [], "for example of the policy of content"
    assert not found, found


@needs_browser
async def test_the_keyboard_reaches_the_content_first_and_then_every_control_with_a_visible_focus(
    console: Stage, chromium: Any
) -> None:
    async with tab(chromium, console, "admin") as page:
        await page.goto(path_of(console, "/alerts/{spend}"))
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.className") == "skip"
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "main"
        seen = []
        for _ in range(8):
            await page.keyboard.press("Tab")
            seen.append(
                await page.evaluate(
                    "[document.activeElement.innerText, getComputedStyle(document.activeElement).outlineStyle]"
                )
            )
        assert ["Edit", "solid"] in seen
        assert ["Disable", "solid"] in seen
        assert all(outline == "solid" for _, outline in seen), seen
        await page.locator("summary", has_text="Disable").focus()
        await page.keyboard.press("Enter")
        assert await page.locator("text=Disable the alert").is_visible()


@needs_browser
async def test_the_form_changes_with_the_condition_without_a_new_page(console: Stage, chromium: Any) -> None:
    async with tab(chromium, console, "editor") as page:
        await page.goto(f"{console.base}/alerts/new")
        await page.evaluate("window.isTheSamePage = true")
        await page.fill("#f-display_name", "Made in a browser")
        await page.select_option("#f-condition", "low_remaining_seat_balance_reached")
        await page.wait_for_selector("#f-low_remaining_seat_balance_reached-seat_filter-seat_group_key")
        assert await page.input_value("#f-display_name") == "Made in a browser"
        await page.select_option("#f-condition", "usage_threshold_reached")
        await page.wait_for_selector("#f-usage_threshold_reached-metric_id")
        await page.fill("#f-usage_threshold_reached-metric_id", "tokens")
        await page.click("#add-f-thresholds")
        await page.wait_for_selector("#f-thresholds-1-value")
        assert await page.evaluate("document.activeElement.id.startsWith('f-thresholds-1-')"), (
            "the new one has the focus"
        )
        await page.locator("button", has_text="Remove threshold 2").press("Enter")
        await page.wait_for_selector("#f-thresholds-1-value", state="detached")
        assert await page.evaluate("document.activeElement.id") == "add-f-thresholds", "the focus is not lost"
        assert "have changed" in await page.inner_text("[data-partial-said]")
        await page.click("#add-f-thresholds")
        await page.wait_for_selector("#f-thresholds-1-value")
        await page.fill("#f-thresholds-0-value", "1")
        await page.fill("#f-thresholds-1-value", "90000000")
        await page.click("#preview-button")
        await page.wait_for_selector("aside .gauge")
        assert "tokens" in await page.inner_text("aside")
        assert "tokens" in await page.inner_text("[data-partial-said]"), "a screen reader says it"
        assert await page.evaluate("window.isTheSamePage"), "no page was loaded"
        await page.fill("#f-thresholds-1-value", "many")
        await page.click("text=Create the alert")
        await page.wait_for_selector("[role=alert]")
        assert "cannot be saved yet" in await page.evaluate("document.activeElement.innerText"), "it is read first"
        assert (await page.title()).startswith("Not saved")
        await page.fill("#f-thresholds-1-value", "90000000")
        await page.click("text=Create the alert")
        await page.wait_for_selector("h1:has-text('Made in a browser')")


@needs_browser
async def test_the_overview_is_read_again_by_itself(console: Stage, chromium: Any) -> None:
    async with tab(chromium, console, "reader") as page:
        await page.clock.install()
        await page.goto(f"{console.base}/")
        async with page.expect_response("**/overview/live", timeout=30_000) as answer:
            await page.clock.fast_forward(5_000)
        assert (await answer.value).status == 200
        assert await page.inner_text("[data-live-text]") == "Live"
        await page.locator("[data-poll] a").first.focus()
        await page.clock.fast_forward(5_000)
        assert (await page.inner_text("[data-live-text]")).startswith("Paused")
        async with page.expect_response("**/overview/live", timeout=30_000) as answer:
            await page.locator("h1").evaluate("document.activeElement.blur()")
            await page.clock.fast_forward(5_000)
        assert (await answer.value).status == 200
        await page.wait_for_function("document.querySelector('[data-live-text]').textContent === 'Live'")


@needs_browser
async def test_everything_works_without_scripts(console: Stage, chromium: Any) -> None:
    context = await chromium.new_context(java_script_enabled=False)
    try:
        page = await context.new_page()
        await page.goto(f"{console.base}/signin")
        await page.fill("#key", console.keys["editor"])
        await page.click("button.primary")
        await page.wait_for_url(f"{console.base}/")
        await page.goto(f"{console.base}/alerts/new")
        await page.select_option("#f-condition", "low_credit_balance_reached")
        await page.locator("noscript button[value=reload]").last.click()
        assert await page.locator("[name='low_credit_balance_reached.currency']").count() == 1
    finally:
        await context.close()
