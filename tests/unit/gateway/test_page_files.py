"""The files of the page."""

import re

import httpx
import pytest
from fastapi import FastAPI

from services.gateway.page.routes import PageFile, mount_page, read_page_files
from shared.notifications import NotificationType

_IMPORTED = re.compile(r'^(?:import|export) .*"\./(.+?)";$', re.MULTILINE)
_PRELOADED = re.compile(r'<link rel="modulepreload" href="page/(.+?)">')


@pytest.fixture(scope="module")
def files() -> dict[str, PageFile]:
    return read_page_files()


def test_the_files_have_at_most_150_kib_compressed(files: dict[str, PageFile]) -> None:
    assert sum(len(file.compressed) for file in files.values()) <= 150 * 1024


def test_modules_are_requested_at_once_rather_than_in_a_chain(files: dict[str, PageFile]) -> None:
    needed: set[str] = set()
    found = ["main.js"]
    while found:
        imported = _IMPORTED.findall(files[found.pop()].content.decode())
        found += set(imported) - needed
        needed |= set(imported)
    assert "composer.js" in needed
    assert set(_PRELOADED.findall(files["index.html"].content.decode())) == needed


def test_the_form_of_a_webhook_endpoint_offers_all_types_of_events(files: dict[str, PageFile]) -> None:
    listed = files["webhooks.js"].content.decode().partition("EVENT_TYPES = [")[2].partition("]")[0]
    offered = re.findall(r'"(.+?)"', listed)
    assert offered == [
        type_ for type_ in NotificationType if type_ is not NotificationType.WEBHOOK_ENDPOINT_TEST
    ]


async def test_browsers_keep_the_files_of_a_release_but_not_those_of_another() -> None:
    app = FastAPI()
    mount_page(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        page = await client.get("/")
        assert page.headers["Cache-Control"] == "no-cache"
        main = re.findall(r'src="(page/.+/main.js)"', page.text)[0]
        own = await client.get(main)
        assert (own.headers["Content-Encoding"], own.headers["Content-Type"]) == (
            "gzip",
            "text/javascript; charset=utf-8",
        )
        assert "immutable" in own.headers["Cache-Control"]
        assert "default-src 'none'" in own.headers["Content-Security-Policy"]
        other = await client.get("/page/another/main.js", headers={"Accept-Encoding": "identity"})
        assert other.headers["Cache-Control"] == "no-store"
        assert other.content == own.content
        assert (await client.get("/page/another/missing.js")).status_code == 404
