"""Measures how long the page takes to show the first conversations, if Chromium is installed."""

import asyncio
import shutil
from uuid import uuid4

from playwright.async_api import Browser, BrowserContext, async_playwright

from dev.bench.report import Cell, Table, percentile
from dev.bench.samples import webhook
from dev.bench.size import Size
from dev.bench.stack import Stack
from dev.bench.waiting import until

_CONVERSATIONS = 100
_TIMEOUT = 60
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")

# A task that a frame callback starts runs after the frame has been painted.
_OBSERVE = """
new MutationObserver((_, observer) => {
    if (!document.querySelector('.rows li')) return;
    observer.disconnect();
    requestAnimationFrame(() => setTimeout(() => { window.shownAfter = performance.now(); }));
}).observe(document, { childList: true, subtree: true });
"""


async def measure(stack: Stack, size: Size) -> list[Table]:
    title = "From navigation until the first conversations are painted, ms"
    program = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if program is None:
        return [Table(title, [""], [["Chromium is not installed: apt-get install chromium"]])]
    await stack.start("gateway", "ingest")
    await _fill(stack)
    url = stack.url("gateway", "/")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        first = [await _first_visit(browser, url) for _ in range(size.visits)]
        context = await browser.new_context()
        repeated = [await _visit(context, url) for _ in range(1 + size.visits)][1:]
        await browser.close()
    await stack.stop("gateway", "ingest")
    rows = [_row("first visit", first), _row("repeated visit", repeated)]
    return [Table(title, ["", "p50", "slowest"], rows)]


def _row(name: str, milliseconds: list[float]) -> list[Cell]:
    return [name, round(percentile(milliseconds, 0.5)), round(max(milliseconds))]


async def _fill(stack: Stack) -> None:
    """Receive a message in each of as many conversations as the page requests at first."""
    webhooks = (webhook(number, uuid4().hex) for number in range(_CONVERSATIONS))
    url = stack.url("gateway", "/api/webhooks/sms")
    for response in await asyncio.gather(*(stack.http.post(url, json=payload) for payload in webhooks)):
        response.raise_for_status()
    conversations = stack.url("gateway", f"/api/conversations?limit={_CONVERSATIONS}")

    async def all_are_stored() -> bool:
        response = await stack.http.get(conversations)
        return len(response.raise_for_status().json()["items"]) == _CONVERSATIONS

    await until(all_are_stored, seconds=_TIMEOUT, every=0.1)


async def _first_visit(browser: Browser, url: str) -> float:
    context = await browser.new_context()
    try:
        return await _visit(context, url)
    finally:
        await context.close()


async def _visit(context: BrowserContext, url: str) -> float:
    """Return the milliseconds from the navigation until the first conversations have been painted."""
    page = await context.new_page()
    await page.add_init_script(_OBSERVE)
    await page.goto(url)
    shown = await page.wait_for_function("() => window.shownAfter")
    milliseconds = float(await shown.json_value())
    await page.close()
    return milliseconds
