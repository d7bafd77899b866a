"""The documentation page at `/docs` loads everything from the gateway itself."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from services.gateway.http.docs import mount_docs


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI(title="Docs & more", docs_url=None, redoc_url=None, redirect_slashes=False)
    mount_docs(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        yield client


async def test_the_page_has_the_title_of_the_app(client: httpx.AsyncClient) -> None:
    response = await client.get("/docs")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "<title>Docs &amp; more</title>" in response.text


async def test_the_page_links_only_to_files_that_exist_below_its_own_path(client: httpx.AsyncClient) -> None:
    links = re.findall(r'(?:href|src)="([^"]*)"', (await client.get("/docs")).text)
    assert len(links) == 6
    for link in links:
        assert not link.startswith(("/", "http"))
        assert (await client.get(f"/{link}")).status_code == 200


@pytest.mark.parametrize(
    ("file", "content_type"),
    [
        ("docs.js", r"(text|application)/javascript\b"),  # Python 3.12 and newer say text
        ("swagger-ui/swagger-ui-bundle.js", r"(text|application)/javascript\b"),
        ("swagger-ui/swagger-ui.css", r"text/css\b"),
        ("swagger-ui/favicon-32x32.png", "image/png"),
    ],
)
async def test_files_have_the_type_that_browsers_require(
    client: httpx.AsyncClient, file: str, content_type: str
) -> None:
    assert re.match(content_type, (await client.get(f"/docs/static/{file}")).headers["Content-Type"])


async def test_the_browser_may_load_nothing_from_another_host(client: httpx.AsyncClient) -> None:
    response = await client.get("/docs")
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    for directive in policy.split("; "):
        _, *sources = directive.split()
        assert set(sources) <= {"'none'", "'self'", "data:"}
    assert not re.search(r"<script(?! src)|<style| on\w+=| style=", response.text)


async def test_the_page_is_not_part_of_the_api(client: httpx.AsyncClient) -> None:
    assert (await client.get("/openapi.json")).json()["paths"] == {}


@pytest.mark.parametrize(
    "path", ["/docs/static/../docs.py", "/docs/static/%2e%2e/docs.py", "/docs/", "/redoc"]
)
async def test_nothing_else_is_served(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 404
