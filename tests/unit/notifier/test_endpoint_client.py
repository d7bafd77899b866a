import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from services.notifier import endpoint_client
from services.notifier.endpoint_client import DeliveryError, EndpointClient, make_endpoint_client
from shared.webhook_attempts import MAX_EXCERPT
from tests.receiver import Receiver, answering, hanging, receiving

HOSTS = {"public": ["93.184.215.14"], "private": ["10.0.0.1"], "both": ["93.184.215.14", "127.0.0.1"]}


async def look_up(host: str, port: int) -> Sequence[str]:  # noqa: ARG001 - for any port
    if host == "nobody":
        raise OSError("no such host")
    return HOSTS[host]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def client() -> AsyncIterator[EndpointClient]:
    async with make_endpoint_client(timeout=0.3, allow_private=True) as client:
        yield client


async def failure_of(client: EndpointClient, url: str) -> str:
    with pytest.raises(DeliveryError) as caught:
        await client.post(url, {}, b"{}")
    return caught.value.code


@pytest.mark.parametrize(
    "url",
    [
        "https://private/",
        "https://both/",
        "https://127.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "http://public/",
        "https://public:22/",
        "http://2130706433/",
        "ftp://public/",
    ],
)
async def test_only_the_public_internet_is_reached(url: str) -> None:
    async with make_endpoint_client(look_up=look_up) as client:
        assert await failure_of(client, url) == "not_public"


@pytest.mark.parametrize(("url", "code"), [("https://nobody/", "unresolvable"), ("https://", "invalid_url")])
async def test_a_url_that_leads_nowhere_is_a_failure(url: str, code: str) -> None:
    async with make_endpoint_client(look_up=look_up, allow_private=True) as client:
        assert await failure_of(client, url) == code


async def test_a_response_is_cut(client: EndpointClient, receiver: Receiver) -> None:
    receiver.responses["app"] = answering(500, text="ä\0" * 2_000, headers={"Retry-After": "120"})

    answer = await client.post(receiver.url("app"), {}, b"{}")

    assert answer.status == 500
    assert 0 < len(answer.excerpt) <= MAX_EXCERPT
    assert "\0" not in answer.excerpt
    assert answer.retry_after is not None
    assert answer.retry_after.total_seconds() == 120


async def test_the_status_counts_even_if_the_body_does_not_arrive(
    client: EndpointClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = asyncio.Event()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        while await reader.read(1_024):  # until the client closes the connection
            pass
        writer.close()
        closed.set()

    monkeypatch.setattr(endpoint_client, "_EXCERPT_SECONDS", 0.1)
    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        answer = await client.post(f"http://127.0.0.1:{port}/", {}, b"{}")
        await closed.wait()
    assert (answer.status, answer.excerpt) == (200, "abc")


async def test_a_redirect_is_not_followed(client: EndpointClient, receiver: Receiver) -> None:
    receiver.responses["app"] = answering(307, headers={"Location": receiver.url("other")})
    assert (await client.post(receiver.url("app"), {}, b"{}")).status == 307
    assert not receiver.received["other"]


async def test_an_endpoint_that_does_not_respond_is_given_up(
    client: EndpointClient, receiver: Receiver
) -> None:
    receiver.responses["app"] = hanging
    assert await failure_of(client, receiver.url("app")) == "timeout"


async def test_a_closed_port_is_unreachable(client: EndpointClient) -> None:
    assert await failure_of(client, "http://127.0.0.1:9/") == "unreachable"
