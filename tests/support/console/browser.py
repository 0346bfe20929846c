"""A real Chromium, driven by Playwright, for tests and screenshots of the console."""

import importlib.util
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from tests.support.console.stage import Stage

NAMES = ("chromium", "chromium-browser", "google-chrome")
WIDE, NARROW = (1280, 860), (360, 780)


def why_no_browser() -> str:
    """Why there is no browser here; empty if there is one."""
    if importlib.util.find_spec("playwright") is None:
        return "Playwright is not installed"
    if _program() is None:
        return f"there is no Chromium: none of {', '.join(NAMES)} is on the PATH"
    return ""


def _program() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@asynccontextmanager
async def browser() -> AsyncIterator[Any]:
    """A browser without a window."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        # As root, as in containers, Chromium does not start with its sandbox.
        found = await playwright.chromium.launch(executable_path=_program(), args=["--no-sandbox"])
        try:
            yield found
        finally:
            await found.close()


@asynccontextmanager
async def tab(
    chromium: Any, console: Stage, kind: str, *, size: tuple[int, int] = WIDE, dark: bool = False
) -> AsyncIterator[Any]:
    """A page that is signed in with a key of that kind, in a session of its own; empty: not signed in.

    `problems` of the page is a list of what the browser has complained of.
    """
    context = await chromium.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
        locale="en-GB",
        timezone_id="UTC",
    )
    page = await context.new_page()
    page.problems = []
    page.on("console", lambda one: page.problems.append(one.text) if one.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    try:
        if kind:
            await page.goto(f"{console.base}/signin")
            await page.fill("#key", console.keys[kind])
            await page.click("button.primary")
            await page.wait_for_url(f"{console.base}/**")
        yield page
    finally:
        await context.close()


def axe() -> str:
    """The source of axe-core, which finds faults of accessibility."""
    return (files("axe_playwright_python") / "axe.min.js").read_text()
