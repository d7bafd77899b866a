"""A browser that shows the page of running services."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.e2e.stack import Stack, running_stack

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

expect.set_options(timeout=30_000)  # milliseconds

SETTINGS = {
    "PLAYGROUND_SMS_URL": "$SMS_PROVIDER_URL",
    "PLAYGROUND_EMAIL_URL": "$EMAIL_PROVIDER_URL",
    "SENDER_LIMITS": "campaign:+12025550100,+12025550101=4/s",
    "WEBHOOK_ENDPOINT_KEY": "the key of the webhook endpoints",
    "ALLOW_PRIVATE_WEBHOOKS": "true",
}


@pytest.fixture
async def stack(tmp_path: Path, database_url: str, nats_url: str) -> AsyncIterator[Stack]:
    async with running_stack(
        tmp_path, database_url=database_url, nats_url=nats_url, settings=SETTINGS
    ) as stack:
        yield stack


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    if _CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


@dataclass
class Tab:
    """A tab of the browser, with everything that must not happen in it.

    Attributes:
        requests: the URLs that it has requested.
        errors: the errors of its scripts, and the violations of its Content-Security-Policy.
    """

    page: Page
    url: str
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    async def open(self, view: str) -> None:
        await self.page.goto(f"{self.url}/#/{quote(view)}")

    def foreign_requests(self) -> list[str]:
        """Return the requests to any other host."""
        own = (self.url, f"blob:{self.url}", "data:", "about:")
        return [url for url in self.requests if not url.startswith(own)]


@pytest.fixture
async def new_tab(browser: Browser) -> AsyncIterator[Callable[[Stack], Awaitable[Tab]]]:
    contexts = []

    async def create(stack: Stack) -> Tab:
        context = await browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
        contexts.append(context)
        page = await context.new_page()
        tab = Tab(page, stack.gateway_url)
        page.on("request", lambda request: tab.requests.append(request.url))
        page.on("pageerror", lambda error: tab.errors.append(str(error)))
        return tab

    yield create
    for context in contexts:
        await context.close()


@pytest.fixture
async def tab(stack: Stack, new_tab: Callable[[Stack], Awaitable[Tab]]) -> Tab:
    return await new_tab(stack)
