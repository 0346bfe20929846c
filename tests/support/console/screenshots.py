"""Makes the screenshots of docs/console.md: `python -m tests.support.console.screenshots [FOLDER]`."""

import asyncio
import atexit
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc

from generated.tidemark.v1.alert_service_pb2 import GetActivityRequest
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from tests.support.console import scenario
from tests.support.console.browser import NARROW, WIDE, browser, tab, why_no_browser
from tests.support.console.stage import Stage, Visitor, stage
from tests.support.databases import Template

QUALITY = 62  # of the JPEG files, in percent
CAUGHT_UP = 20  # seconds for the deliveries that are due
WRITTEN_AFTER = 4.0  # seconds until a server has written what it counted

PAGES = {
    "overview": "/",
    "customers": "/customers",
    "customer": "/customer?id=acme",
    "balances": "/customer?id=acme#balances",
    "alerts": "/alerts",
    "alert": "/alerts/{spend}",
    "alert-form": "/alerts/{tokens}/edit",
    "alert-new": "/alerts/new",
    "notifications": "/notifications",
    "notification": "{notification}",
    "endpoints": "/endpoints",
    "endpoint": "/endpoints/{failing}",
    "explain": "/explain?alert={tokens}&customer=acme",
}


async def main(folder: Path) -> None:
    """Makes all of them."""
    directory = Path(tempfile.mkdtemp(prefix="tidemark-screenshots-"))
    # Registered before the server's own exit handler, and so run after it: the server has to stop first.
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    template = await asyncio.to_thread(Template, directory)
    try:
        with template.lent_database() as url:
            async with stage(url, with_notifier=True, for_pictures=True) as console, browser() as chromium:
                await _prepare(console)
                visitor = await console.visitor("admin")
                names = {
                    **console.made.alerts,
                    "failing": console.made.failing_endpoint_id,
                    "notification": await _notification(visitor),
                }
                async with tab(chromium, console, "") as page:
                    await page.goto(f"{console.base}/signin")
                    await _save(page, folder / "signin-light-wide.jpg")
                for size, words in ((WIDE, "wide"), (NARROW, "360")):
                    for dark in (False, True):
                        async with tab(chromium, console, "admin", size=size, dark=dark) as page:
                            for name, path in PAGES.items():
                                await page.goto(console.base + path.format(**names))
                                await _preview(page, name)
                                shade = "dark" if dark else "light"
                                await _save(page, folder / f"{name}-{shade}-{words}.jpg")
    finally:
        template.close()


async def _prepare(console: Stage) -> None:
    """Some more that pages show."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{console.server_port}") as channel:
        metadata = (("authorization", f"Bearer {console.keys['admin']}"),)
        await scenario.traffic(channel, metadata, console.clock)
        await asyncio.sleep(WRITTEN_AFTER)
        # The notifier makes in some seconds what it would have made in these minutes. What waits for the endpoint
        # that fails may still be due then.
        overview = AlertServiceStub(channel)
        for _ in range(2 * CAUGHT_UP):
            console.clock.set(datetime.now(UTC))  # by which the database knows what is due
            answer = await overview.GetActivity(GetActivityRequest(), metadata=metadata)
            if not answer.activity.HasField("oldest_due_time"):
                break
            await asyncio.sleep(0.5)


async def _notification(visitor: Visitor) -> str:
    listed = await visitor.get("/notifications?customer=acme&type=1")
    return next(one.attributes["href"] for one in listed.tree.all("a") if "/ntf_" in one.attributes["href"])


async def _preview(page: Any, name: str) -> None:
    if name == "alert-form":
        await page.click("#preview-button")
        await page.wait_for_selector("aside .gauge")


async def _save(page: Any, path: Path) -> None:
    await page.wait_for_timeout(150)
    await page.screenshot(path=path, type="jpeg", quality=QUALITY)


if __name__ == "__main__":
    if problem := why_no_browser():
        raise SystemExit(f"no screenshots: {problem}")
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("docs/screenshots")
    target.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(target))
