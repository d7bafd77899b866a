"""The connections of the HTTP client to a provider, and malformed or unexpected responses."""

import asyncio
import gzip
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import connector

from shared.observability import tracing
from shared.providers import http
from shared.providers.base import (
    CredentialsError,
    File,
    HttpRequest,
    NotReachedError,
    ProviderError,
    RejectedError,
    UnknownOutcomeError,
)
from shared.providers.generic.sms import GENERIC_SMS, GenericSmsAdapter
from shared.providers.http import HttpClient, make_client, send
from shared.providers.registry import create_adapter
from shared.providers.sendgrid import SENDGRID
from tests import messages
from tests.stand_in import Answer, standing_in
from tests.unit.sender.test_attachments import self_signed

BODY = b'{"messaging_provider_id": "g-1"}'
OTHER_BODY = b'{"messaging_provider_id": "g-2"}'
MEGABYTE = 1024 * 1024
SECRET = "Bearer 0123456789"


def http_answer(body: bytes = BODY, *, status: int = 202, headers: str = "") -> bytes:
    return f"HTTP/1.1 {status} -\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


class Server:
    """A provider that keeps its connections open.

    Attributes:
        connections: all of them, in the order in which they were opened.
        requests: the heads of the requests.
        answers: its first responses; it then accepts everything. An empty one closes the connection.
        closes: whether it closes a connection after a response.
        barrier: the number of requests that it waits for before it responds to them.
    """

    def __init__(self) -> None:
        self.url = ""
        self.connections: list[asyncio.StreamWriter] = []
        self.requests: list[str] = []
        self.answers: list[bytes] = []
        self.closes = False
        self.barrier = asyncio.Barrier(1)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        try:
            while answer := await self._answer(reader):
                writer.write(answer)
                await writer.drain()
                if self.closes:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        _, _, length = head.partition("content-length: ")
        await reader.readexactly(int(length.partition("\r\n")[0]))
        self.requests.append(head)
        await self.barrier.wait()
        return self.answers.pop(0) if self.answers else http_answer()


@asynccontextmanager
async def running() -> AsyncIterator[Server]:
    server = Server()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=256)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        for connection in server.connections:
            connection.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running() as server:
        yield server


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    async with make_client(timeout=1.0) as client:
        yield client


class FixedAdapter(GenericSmsAdapter):
    """Sends the same request for every message."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request

    def request(self, *_: Any) -> HttpRequest:  # noqa: ANN401 - as its base
        return self._request


class AdapterWithoutKeys(GenericSmsAdapter):
    honours_idempotency_keys = False


WITHOUT_KEYS = replace(GENERIC_SMS, adapter=AdapterWithoutKeys)


async def send_text(client: HttpClient, url: str, *, has_keys: bool = True) -> str:
    provider = GENERIC_SMS if has_keys else WITHOUT_KEYS
    return await send(client, create_adapter(provider, sms_provider_url=url), messages.message())


async def let_arrive() -> None:
    """Let the client notice that the server has written data or closed a connection."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("seconds", "connections"), [(3, 1), (45, 1), (60, 2)])
async def test_a_connection_is_reused_until_the_provider_might_close_it(
    server: Server, client: HttpClient, monkeypatch: pytest.MonkeyPatch, seconds: int, connections: int
) -> None:
    await send_text(client, server.url)
    monkeypatch.setattr(connector, "monotonic", lambda: time.monotonic() + seconds)
    await send_text(client, server.url)
    assert (len(server.requests), len(server.connections)) == (2, connections)


async def test_requests_do_not_wait_for_free_connections(server: Server, client: HttpClient) -> None:
    server.barrier = asyncio.Barrier(120)
    await asyncio.gather(*(send_text(client, server.url) for _ in range(120)))
    assert len(server.connections) == 120


@pytest.mark.parametrize("has_keys", [True, False])
async def test_a_request_on_a_connection_that_the_provider_closes_is_not_repeated(
    server: Server, client: HttpClient, *, has_keys: bool
) -> None:
    server.answers = [http_answer(), b""]
    await send_text(client, server.url, has_keys=has_keys)
    with pytest.raises(UnknownOutcomeError) as caught:
        await send_text(client, server.url, has_keys=has_keys)
    assert caught.value.code == "connection_lost"
    assert (len(server.requests), len(server.connections)) == (2, 1)


async def test_a_connection_that_the_provider_has_closed_is_not_used(
    server: Server, client: HttpClient
) -> None:
    await send_text(client, server.url)
    server.connections[0].close()
    await let_arrive()
    await send_text(client, server.url)
    assert (len(server.requests), len(server.connections)) == (2, 2)


async def test_an_unsolicited_answer_is_not_taken_for_the_answer_to_the_next_request(
    server: Server, client: HttpClient
) -> None:
    await send_text(client, server.url)
    server.connections[0].write(http_answer(OTHER_BODY))
    await let_arrive()
    assert await send_text(client, server.url) == "g-1"
    assert (len(server.requests), len(server.connections)) == (2, 2)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"x" * 2 * MEGABYTE, ""),
        (gzip.compress(bytes(64 * MEGABYTE)), "Content-Encoding: gzip\r\n"),
    ],
    ids=["long", "a decompression bomb"],
)
async def test_a_huge_answer_is_truncated(
    server: Server, client: HttpClient, body: bytes, headers: str
) -> None:
    server.answers = [http_answer(body, status=400, headers=headers)]
    answer = await client.post(HttpRequest.json(server.url, {}, {}))
    assert (answer.status, len(answer.body)) == (400, MEGABYTE)
    await send_text(client, server.url)
    assert len(server.requests) == 2


async def test_an_unrequested_compressed_answer_is_read(server: Server, client: HttpClient) -> None:
    server.answers = [http_answer(gzip.compress(BODY), headers="Content-Encoding: gzip\r\n")]
    assert await send_text(client, server.url) == "g-1"
    assert "accept-encoding: identity\r\n" in server.requests[0]


async def test_a_long_header_is_read(server: Server, client: HttpClient) -> None:
    server.answers = [http_answer(headers=f"Content-Security-Policy: {'x' * 20_000}\r\n")]
    assert await send_text(client, server.url) == "g-1"


async def test_a_redirect_is_not_followed(server: Server, client: HttpClient) -> None:
    server.answers = [http_answer(status=307, headers=f"Location: {server.url}/\r\n")]
    with pytest.raises(RejectedError) as caught:
        await send_text(client, server.url)
    assert (caught.value.code, len(server.requests)) == ("http_307", 1)


async def test_cookies_are_not_kept(client: HttpClient) -> None:
    async with standing_in() as server:
        server.answer = lambda _: Answer(202, {"Set-Cookie": "a=b"}, BODY)
        url = server.url.replace("127.0.0.1", "localhost")
        for _ in range(2):
            await send_text(client, url)
        assert ["cookie" in request.headers for request in server.requests] == [False, False]


async def test_proxies_and_netrc_of_the_environment_do_not_apply(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ann password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with make_client(timeout=1.0) as client:
        assert await send_text(client, server.url) == "g-1"
    assert "authorization" not in server.requests[0]


async def test_the_provider_can_continue_the_trace(
    server: Server, client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    monkeypatch.setattr(tracing, "headers", lambda: {"traceparent": parent})
    await send_text(client, server.url)
    assert f"traceparent: {parent}\r\n" in server.requests[0]


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (f"{SECRET}\r\n\r\n".encode(), None),
        (f"HTTP/1.1 202 -\r\nX-Echo: {SECRET}\r\nContent-".encode(), None),
        (f"HTTP/1.1 202 -\r\nContent-Length: {SECRET}\r\n\r\n".encode(), None),
        (f"HTTP/1.1 202 -\r\nContent-Length: 99\r\nX-Echo: {SECRET}\r\n\r\n{SECRET}".encode(), 202),
        (b"HTTP/1.1 101 -\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", 101),
    ],
    ids=["no HTTP", "half a head", "an invalid head", "half a body", "an upgrade"],
)
async def test_after_an_invalid_answer_the_outcome_is_unknown_and_the_error_does_not_quote_it(
    server: Server, client: HttpClient, answer: bytes, status: int | None
) -> None:
    server.answers, server.closes = [answer], True
    request = HttpRequest.json(server.url, {}, {"Authorization": SECRET})
    with pytest.raises(UnknownOutcomeError) as caught:
        await send(client, FixedAdapter(request), messages.message())
    error = caught.value
    assert error.status_code == status
    assert SECRET not in f"{error!r} {error.__cause__!r} {error.__context__!r}"


async def test_a_large_message_is_sent_as_fast_as_the_provider_reads(client: HttpClient) -> None:
    file = File("a.bin", "application/octet-stream", bytes(4 * MEGABYTE))
    async with standing_in() as server:
        server.answer = lambda _: Answer(202, {"X-Message-Id": "s-1"})
        adapter = create_adapter(SENDGRID, sendgrid_url=server.url, sendgrid_api_key="SG.a.b")
        assert await send(client, adapter, messages.email(), [file]) == "s-1"
        assert len(server.requests[0].body) > 5 * MEGABYTE


async def test_a_rejection_before_the_end_of_the_request_counts(client: HttpClient) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http_answer(b"too large", status=413))
        while await reader.read(MEGABYTE):
            pass
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        request = HttpRequest(url, {}, bytes(16 * MEGABYTE))
        with pytest.raises(RejectedError) as caught:
            await send(client, FixedAdapter(request), messages.message())
    assert (caught.value.code, str(caught.value)) == ("http_413", "too large")


@pytest.mark.parametrize(
    ("host", "trusts", "accepts"),
    [("localhost", True, True), ("127.0.0.1", True, False), ("localhost", False, False)],
)
async def test_only_a_provider_with_the_right_certificate_gets_the_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, *, trusts: bool, accepts: bool
) -> None:
    tls = self_signed("localhost", tmp_path)
    if trusts:
        monkeypatch.setattr("certifi.where", lambda: str(tmp_path / "certificate.pem"))
    async with standing_in(tls) as server, make_client(timeout=1.0) as client:
        server.answer = lambda _: Answer(202, body=BODY)
        url = server.url.replace("http://127.0.0.1", f"https://{host}")
        if accepts:
            assert await send_text(client, url) == "g-1"
        else:
            with pytest.raises(NotReachedError, match="certificate"):
                await send_text(client, url)
        assert len(server.requests) == accepts


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://127.0.0.1:x", "http://127.0.0.1:99999", "ftp://127.0.0.1"]
)
async def test_an_invalid_url_is_a_fault_of_the_settings(client: HttpClient, url: str) -> None:
    with pytest.raises(CredentialsError) as caught:
        await client.post(HttpRequest(url, {}, b""))
    assert caught.value.code == "invalid_url"


async def test_a_provider_whose_name_cannot_be_resolved_does_not_have_the_message(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any, **__: Any) -> None:  # noqa: ANN401 - as the original
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fail)
    with pytest.raises(ProviderError) as caught:
        await send_text(client, "http://provider.invalid")
    assert (type(caught.value), caught.value.code) == (NotReachedError, "not_reached")


async def test_a_provider_that_is_silent_during_the_connection_does_not_have_the_message(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_CONNECT_TIMEOUT", 0.05)
    async with make_client(timeout=1.0) as client:
        with pytest.raises(NotReachedError):
            await send_text(client, server.url.replace("http:", "https:"))
    assert server.requests == []
