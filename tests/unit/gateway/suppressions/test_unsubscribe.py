"""The pages behind the links in e-mails."""

from collections.abc import AsyncIterator

import httpx
import pytest

from shared.bus.topology import Stream
from shared.channels import Channel
from shared.suppressions import SuppressionSource, SuppressionState
from shared.unsubscribe import Subscription
from tests.jetstream import JetStream
from tests.unit.gateway.in_memory import NOW, calling, create_gateway, events
from tests.unit.gateway.requests import problem_of

SECRET = "a secret of some length"


def link(ours: str = "ann@example.com", theirs: str = "ben@example.org", secret: str = SECRET) -> str:
    return "/unsubscribe/" + Subscription(Channel.EMAIL, ours, theirs).sign(secret)


@pytest.fixture
async def linked(server: JetStream) -> AsyncIterator[httpx.AsyncClient]:
    """Call a gateway that needs an API key for everything else."""
    async with calling(
        create_gateway(server, unsubscribe_secret=SECRET, api_keys="a:0123456789abcdef")
    ) as client:
        yield client


async def test_the_page_asks_before_it_unsubscribes(linked: httpx.AsyncClient, server: JetStream) -> None:
    page = await linked.get(link())

    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "Unsubscribe ben@example.org from messages sent by ann@example.com?" in page.text
    assert '<form method="post">' in page.text
    assert "script" not in page.text
    assert server.messages(Stream.SUPPRESSIONS) == []


async def test_a_click_unsubscribes_once(linked: httpx.AsyncClient, server: JetStream) -> None:
    for _ in range(2):  # as mail programs do it (RFC 8058), without a key or a cookie
        done = await linked.post(link(), data={"List-Unsubscribe": "One-Click"})
        assert done.status_code == 200
        assert "ben@example.org is unsubscribed from messages sent by ann@example.com." in done.text

    [event] = events(server, Stream.SUPPRESSIONS)
    assert (event.data.ours, event.data.theirs) == ("ann@example.com", "ben@example.org")
    assert (event.data.state, event.data.source) == (
        SuppressionState.OPTED_OUT,
        SuppressionSource.UNSUBSCRIBE,
    )
    assert event.data.occurred_at == NOW


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_page_is_neither_cached_nor_framed(linked: httpx.AsyncClient, method: str) -> None:
    headers = (await linked.request(method, link())).headers

    assert headers["cache-control"] == "no-store"
    assert headers["content-security-policy"] == (
        "default-src 'none'; form-action 'self'; frame-ancestors 'none'"
    )
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-robots-tag"] == "noindex"


async def test_the_page_shows_addresses_as_text(linked: httpx.AsyncClient) -> None:
    odd = link("<b>@example.com", '"<i>"@example.org')
    for page in (await linked.get(odd), await linked.post(odd)):
        assert "&lt;b&gt;@example.com" in page.text
        assert "&lt;i&gt;" in page.text


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "path", [link()[:-2] + "xx", link(secret="another secret of some length"), "/unsubscribe/x"]
)
async def test_a_link_that_was_not_signed_is_not_found(
    linked: httpx.AsyncClient, method: str, path: str
) -> None:
    response = await linked.request(method, path)

    assert (response.status_code, problem_of(response)) == (404, "subscription_not_found")


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_without_a_secret_there_are_no_links(client: httpx.AsyncClient, method: str) -> None:
    response = await client.request(method, link())

    assert (response.status_code, problem_of(response)) == (404, "not_found")
