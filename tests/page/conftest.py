"""A browser that shows the page of running services."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.e2e.stack import Stack, running_stack

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

expect.set_options(timeout=30_000)  # milliseconds

PLAYGROUND = {"PLAYGROUND_SMS_URL": "$SMS_PROVIDER_URL", "PLAYGROUND_EMAIL_URL": "$EMAIL_PROVIDER_URL"}


@pytest.fixture
async def stack(tmp_path: Path, database_url: str, nats_url: str) -> AsyncIterator[Stack]:
    async with running_stack(
        tmp_path, database_url=database_url, nats_url=nats_url, settings=PLAYGROUND
    ) as stack:
        yield stack


@pytest.fixture
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
def new_tab(browser: Browser) -> Callable[..., Awaitable[Tab]]:
    async def create(stack: Stack, *, width: int = 1280, scheme: Literal["light", "dark"] = "light") -> Tab:
        context = await browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce"
        )
        page = await context.new_page()
        tab = Tab(page, stack.gateway_url)
        page.on("request", lambda request: tab.requests.append(request.url))
        page.on("pageerror", lambda error: tab.errors.append(str(error)))
        return tab

    return create


@pytest.fixture
async def tab(stack: Stack, new_tab: Callable[..., Awaitable[Tab]]) -> Tab:
    return await new_tab(stack)
