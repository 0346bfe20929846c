"""The console in a real Chromium: accessibility, the keyboard, small screens, dark mode, live parts and forms."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.console.browser import NARROW, WIDE, axe, browser, tab, why_no_browser
from tests.support.console.stage import Stage

pytestmark = pytest.mark.skipif(bool(why_no_browser()), reason=why_no_browser() or "there is a browser")

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


@pytest.fixture(scope="module")
async def chromium() -> AsyncIterator[Any]:
    """One browser for the module."""
    async with browser() as found:
        yield found


def path_of(console: Stage, path: str) -> str:
    """The address of a page."""
    return console.base + path.format(**console.made.alerts)


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
        await page.fill("#f-thresholds-0-value", "1")
        await page.fill("#f-thresholds-1-value", "90000000")
        await page.click("#preview-button")
        await page.wait_for_selector("aside .gauge")
        assert "tokens" in await page.inner_text("aside")
        assert await page.evaluate("window.isTheSamePage"), "no page was loaded"
        await page.click("text=Create the alert")
        await page.wait_for_selector("h1:has-text('Made in a browser')")


async def test_the_overview_is_read_again_by_itself(console: Stage, chromium: Any) -> None:
    async with tab(chromium, console, "reader") as page:
        await page.clock.install()
        await page.goto(f"{console.base}/")
        async with page.expect_response("**/overview/live", timeout=30_000) as answer:
            await page.clock.fast_forward(5_000)
        assert (await answer.value).status == 200
        assert await page.inner_text("[data-live-text]") == "Live"


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
