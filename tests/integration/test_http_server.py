"""The limits of the HTTP server, over real connections."""

import asyncio
import json
import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from shared import http_admission, http_server, service
from shared.http_admission import MAX_IN_PROGRESS, Admission
from shared.http_server import MAX_CONNECTIONS, config_of
from tests.waiting import eventually

pytestmark = pytest.mark.integration

HOST = "127.0.0.1"
MIB = 1024 * 1024
WEBHOOK = "/api/webhooks/sms"


class Client:
    """A connection that sends exactly what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def head(self) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)

    async def response(self) -> tuple[int, bytes]:
        """Return the status and the body of the next response."""
        head = await self.head()
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        return int(head.split()[1]), await asyncio.wait_for(self.reader.readexactly(length), 10)

    async def is_closed(self) -> bool:
        """Wait until the server closes the connection."""
        with suppress(ConnectionError):
            await asyncio.wait_for(self.reader.read(), 10)
        return True

    async def close(self) -> None:
        self._writer.close()


@dataclass
class Server:
    """A server whose application answers as soon as it may.

    Attributes:
        admission: the limits of the server.
        may_answer: set unless requests to `/slow` have to wait.
        may_read: set unless the bodies of requests to `/late` have to wait.
        seen: the sizes of the bodies that were read.
    """

    listeners: list[socket.socket] = field(default_factory=list)
    port: int = 0
    private_port: int = 0
    admission: Admission = field(init=False)
    config: uvicorn.Config = field(init=False)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    may_read: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    seen: list[int] = field(default_factory=list)
    exits: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def connect(self, port: int | None = None) -> Client:
        client = Client(*await asyncio.open_connection(HOST, port or self.port))
        self.exits.push_async_callback(client.close)
        return client

    async def request(self, path: str, *, port: int | None = None) -> Client:
        """Send a request on a connection of its own."""
        client = await self.connect(port)
        client.send(get(path))
        return client

    async def status(self, path: str = "/", *, port: int | None = None) -> int:
        return (await (await self.request(path, port=port)).response())[0]


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "host: x", *headers, "", ""]).encode()


def post(path: str, *headers: str) -> bytes:
    return get(path, *headers).replace(b"GET", b"POST", 1)


def problem(body: bytes) -> str:
    return str(json.loads(body)["code"])


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    state = Server()
    state.may_answer.set()
    state.may_read.set()

    async def read(request: Request) -> PlainTextResponse:
        if request.url.path == "/late":
            await state.may_read.wait()
        try:
            state.seen.append(len(await request.body()))
        except ClientDisconnect:
            return PlainTextResponse("incomplete", 400)
        return PlainTextResponse("ok")

    async def refuse(_: Request) -> PlainTextResponse:
        return PlainTextResponse("refused", 401)

    async def slow(_: Request) -> PlainTextResponse:
        state.begun.release()
        await state.may_answer.wait()
        return PlainTextResponse("ok")

    paths = {"/": read, "/late": read, "/metrics": read, "/refuse": refuse, "/slow": slow, WEBHOOK: slow}
    routes = [Route(path, handler, methods=["GET", "POST"]) for path, handler in paths.items()]
    state.listeners = [socket.create_server((HOST, 0)) for _ in range(2)]
    state.port, state.private_port = (listener.getsockname()[1] for listener in state.listeners)
    state.admission = Admission(Starlette(routes=routes), private_port=state.private_port)
    state.config = config_of(state.admission)
    uvicorn_server = uvicorn.Server(state.config)
    async with state.exits:
        task = asyncio.create_task(uvicorn_server.serve(sockets=state.listeners))

        async def has_started() -> bool:
            return uvicorn_server.started

        await eventually(has_started)
        yield state
        state.may_answer.set()
        state.may_read.set()
    uvicorn_server.should_exit = True
    await task


async def test_requests_are_answered_one_after_the_other_on_a_connection(server: Server) -> None:
    client = await server.connect()
    for _ in range(3):
        client.send(get("/"))
        assert await client.response() == (200, b"ok")


@pytest.mark.parametrize("size", [0, 10, 20_000, MIB])
async def test_a_body_arrives_as_a_whole(server: Server, size: int) -> None:
    client = await server.connect()
    client.send(post("/", f"content-length: {size}"))
    client.send(b"x" * size)

    assert await client.response() == (200, b"ok")
    assert server.seen == [size]


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.0"])
async def test_an_offer_to_change_the_protocol_is_ignored(server: Server, protocol: str) -> None:
    client = await server.connect()
    client.send(post("/", "connection: Upgrade", f"Upgrade: {protocol}", "content-length: 5"))
    client.send(b"12345" + get("/"))
    assert (await client.response())[0] == 200
    assert (await client.response())[0] == 200
    assert server.seen == [5, 0]


async def test_what_follows_an_offer_that_arrives_in_parts_is_not_another_request(server: Server) -> None:
    client = await server.connect()
    offer = post("/", "connection: Upgrade", "upgrade: h2c", "content-length: 60")
    middle = offer.index(b"grade: h2c")
    client.send(offer[:middle])
    assert await server.status() == 200  # by now, the first part has arrived
    client.send(offer[middle:] + get("/") * 2)
    assert await client.is_closed()
    assert len(server.seen) <= 2


async def test_a_chunked_body_and_one_that_waits_for_permission_arrive(server: Server) -> None:
    client = await server.connect()
    client.send(post("/", "transfer-encoding: chunked") + b"1\r\nx\r\n1\r\ny\r\n0\r\n\r\n")
    assert await client.response() == (200, b"ok")
    client.send(post("/", "content-length: 3", "expect: 100-continue"))
    assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"abc")

    assert await client.response() == (200, b"ok")
    assert server.seen == [2, 3]


# --- Sizes


@pytest.mark.parametrize(
    "begin",
    [
        b"GET /" + b"x" * 70_000,
        b"GET / HTTP/1.1\r\nhost: x\r\nlarge: " + b"x" * 70_000,
        b"GET / HTTP/1.1\r\nhost: x\r\nlarge: " + b"x" * 70_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"many: y\r\n" * 9_000 + b"\r\n",
    ],
    ids=["path", "header", "whole header", "many headers"],
)
async def test_headers_above_the_limit_are_refused_and_the_connection_is_closed(
    server: Server, begin: bytes
) -> None:
    client = await server.connect()
    client.send(begin)

    status, body = await client.response()
    assert (status, problem(body)) == (431, "headers_too_large")
    assert await client.is_closed()
    assert server.seen == []


@pytest.mark.parametrize("begin", [b"0\r\nlarge: ", b"1;"], ids=["trailer", "chunk extension"])
async def test_a_connection_with_endless_data_around_a_body_is_closed(server: Server, begin: bytes) -> None:
    client = await server.connect()
    client.send(post("/", "transfer-encoding: chunked") + begin + b"x" * MIB)

    assert await client.is_closed()
    assert server.seen == []


async def test_the_memory_for_unfinished_bodies_is_bounded_and_the_oldest_makes_room(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "MAX_UNFINISHED", 2 * MIB)
    clients = [await server.connect() for _ in range(4)]
    for number, client in enumerate(clients, start=1):
        client.send(post("/", "content-length: 1000000") + b"x" * 800_000)

        async def has_arrived(number: int = number) -> bool:
            return server.admission.unfinished_bytes == min(number, 2) * 800_000

        await eventually(has_arrived)
    for client in clients[2:]:
        client.send(b"x" * 200_000)

    for client in clients[:2]:
        status, body = await client.response()
        assert (status, problem(body)) == (503, "overloaded")
        assert await client.is_closed()
    assert [await client.response() for client in clients[2:]] == [(200, b"ok")] * 2
    assert server.admission.unfinished_bytes == 0


# --- Times


@pytest.mark.parametrize(
    "begin",
    [b"", b"\r\n\r\n", b"GET / HTTP/1.1\r\nhost: x\r\n"],
    ids=["nothing", "empty lines", "half a request"],
)
@pytest.mark.parametrize("requests_before", [0, 1])
async def test_a_connection_without_a_complete_request_is_closed(
    server: Server, monkeypatch: pytest.MonkeyPatch, begin: bytes, requests_before: int
) -> None:
    monkeypatch.setattr(http_server, "TICK", 0.05)
    monkeypatch.setattr(server.config, "timeout_keep_alive", 0.05)
    client = await server.connect()
    for _ in range(requests_before):
        client.send(get("/"))
        assert await client.response() == (200, b"ok")
    client.send(begin)

    assert await client.is_closed()
    assert not server.admission.unfinished


@pytest.mark.parametrize("length", [10, 100_000], ids=["small", "large"])
async def test_a_body_that_does_not_advance_is_refused_so_that_the_client_repeats_it(
    server: Server, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setattr(http_server, "TICK", 0.05)
    client = await server.connect()
    client.send(post("/", f"content-length: {length}") + b"x" * 5)

    status, body = await client.response()
    assert (status, problem(body)) == (503, "body_timeout")
    assert await client.is_closed()
    assert server.admission.unfinished_bytes == 0


async def test_a_body_that_is_sent_on_after_a_refusal_is_cut_off(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "TICK", 0.05)
    client = await server.connect()
    client.send(post("/refuse", "content-length: 100000") + b"x" * 50_000)

    assert (await client.response())[0] == 401
    assert await client.is_closed()


async def test_a_client_does_not_have_to_advance_while_the_server_does_not_read(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "TICK", 0.01)
    server.may_read.clear()
    client = await server.connect()
    client.send(post("/late", "content-length: 4000000") + b"x" * 4_000_000)
    ticks = 0
    is_over = asyncio.Event()

    def count() -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 20:
            is_over.set()
        else:
            asyncio.get_running_loop().call_later(http_server.TICK, count)

    count()
    await is_over.wait()
    server.may_read.set()

    assert await client.response() == (200, b"ok")


# --- Numbers


async def test_the_oldest_connection_without_a_request_makes_room_for_a_new_one(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 3)
    server.may_answer.clear()
    working = await server.request("/slow")
    await server.begun.acquire()
    waiting = []
    for begin in (b"", b"GET /", post("/", "content-length: 100000")):
        waiting.append(await server.connect())
        waiting[-1].send(begin)

    assert await server.status("/") == 200
    assert await waiting[0].is_closed()
    assert await waiting[1].is_closed()
    server.may_answer.set()
    assert await working.response() == (200, b"ok")


async def fill(server: Server, path: str) -> list[Client]:
    """Make as many requests as are handled at the same time, which get no answer yet."""
    server.may_answer.clear()
    clients = [await server.request(path) for _ in range(MAX_IN_PROGRESS)]
    for _ in clients:
        await server.begun.acquire()
    return clients


async def test_requests_that_are_too_many_are_refused_at_once(server: Server) -> None:
    clients = await fill(server, "/slow")
    client = await server.request("/slow")

    head = await client.head()
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: 2\r\n" in head
    assert b"application/problem+json" in head
    assert b"\r\nx-request-id: " in head
    server.may_answer.set()
    assert [await each.response() for each in clients] == [(200, b"ok")] * len(clients)
    assert await server.status("/slow") == 200


async def test_a_request_that_is_refused_is_not_read_as_the_next_one(server: Server) -> None:
    clients = await fill(server, "/slow")
    client = await server.connect()
    client.send(get("/slow", f"content-length: {len(get('/'))}") + get("/"))
    assert (await client.response())[0] == 503
    server.may_answer.set()
    for each in clients:
        await each.response()

    async def is_accepted() -> bool:
        client.send(get("/"))
        return (await client.response())[0] == 200

    await eventually(is_accepted)
    assert server.seen == [0]


async def test_a_client_that_retries_immediately_is_served_once_there_is_room(server: Server) -> None:
    clients = await fill(server, "/slow")
    client = await server.request("/")
    assert (await client.response())[0] == 503
    client.send(get("/"))
    server.may_answer.set()
    for each in clients:
        await each.response()

    async with asyncio.timeout(10):
        while (await client.response())[0] != 200:
            client.send(get("/"))  # ignoring Retry-After


@pytest.mark.parametrize(("request_", "status"), [(get("/"), 503), (post(WEBHOOK), 200)])
async def test_a_request_that_has_waited_unread_is_refused_unless_it_is_a_webhook(
    server: Server, monkeypatch: pytest.MonkeyPatch, request_: bytes, status: int
) -> None:
    monkeypatch.setattr(http_admission, "_STALE_AFTER", 0)
    monkeypatch.setattr(http_admission, "_RESUME_EVERY", 0.5)
    clients = await fill(server, "/slow")
    client = await server.request("/")
    assert (await client.response())[0] == 503
    client.send(request_)
    server.may_answer.set()
    for each in clients:
        await each.response()
    assert (await client.response())[0] == status


async def test_a_client_that_sends_very_many_requests_while_they_are_refused_is_cut_off(
    server: Server,
) -> None:
    await fill(server, "/slow")
    client = await server.connect()
    client.send(get("/") * 1_000)

    answer = await asyncio.wait_for(client.reader.read(), 10)
    assert answer.count(b"HTTP/1.1 503 ") == answer.count(b"\r\n\r\n") == 16
    assert answer.count(b"\r\nconnection: close\r\n") == 1


async def test_reads_webhooks_and_other_requests_do_not_take_places_of_each_other(server: Server) -> None:
    await fill(server, "/slow")
    assert await server.status("/slow") == 503
    webhook = await server.connect()
    webhook.send(post(WEBHOOK))
    await server.begun.acquire()
    send = await server.connect()
    send.send(post("/slow"))
    await server.begun.acquire()

    server.may_answer.set()
    assert await webhook.response() == (200, b"ok")
    assert await send.response() == (200, b"ok")


async def test_bodies_that_arrive_slowly_take_no_place(server: Server) -> None:
    slow = [await server.connect() for _ in range(MAX_IN_PROGRESS + 10)]
    for client in slow:
        client.send(post("/", "content-length: 100000") + b"x" * 50_000)

    async def have_arrived() -> bool:
        return server.admission.unfinished_bytes == 50_000 * len(slow)

    await eventually(have_arrived)
    client = await server.connect()
    client.send(post("/"))
    assert await client.response() == (200, b"ok")


async def test_metrics_are_served_at_the_private_port_only_and_are_never_refused(server: Server) -> None:
    await fill(server, "/slow")

    assert await server.status("/metrics", port=server.private_port) == 200
    assert await server.status("/slow", port=server.private_port) == 503
    server.may_answer.set()
    client = await server.request("/metrics")
    status, body = await client.response()
    assert (status, problem(body)) == (404, "not_found")


async def test_a_client_that_sends_very_many_requests_without_waiting_is_cut_off(server: Server) -> None:
    server.may_answer.clear()
    client = await server.connect()
    client.send(get("/slow") * 1_000)

    assert await client.is_closed()


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO contains the backlog on Linux only")
async def test_the_listen_backlog_is_the_connection_limit_or_the_maximum_of_the_system(
    server: Server,
) -> None:
    longest = await asyncio.to_thread(Path("/proc/sys/net/core/somaxconn").read_text)
    information = server.listeners[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    (backlog,) = struct.unpack_from(
        "I", information, 28
    )  # for a listening socket, `tcpi_sacked` is the backlog
    assert backlog == min(MAX_CONNECTIONS, int(longest))


class Accepting(asyncio.Protocol):
    """Counts the connections that are accepted, and closes them."""

    count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        Accepting.count += 1
        transport.close()


def test_several_connections_are_accepted_in_each_iteration_of_the_event_loop() -> None:
    listeners = service.listen(HOST, 0, "test")
    count = 64

    async def iterations() -> int:
        loop = asyncio.get_running_loop()
        servers = [await loop.create_server(Accepting, sock=listener) for listener in listeners]
        number = 0
        with ExitStack() as exits:
            for server in servers:
                exits.callback(server.close)
            for _ in range(count):
                exits.enter_context(socket.create_connection(listeners[0].getsockname()))
            while Accepting.count < count:
                number += 1
                await asyncio.sleep(0)
        return number

    assert uvloop.run(iterations()) < count / 2
    for listener in listeners:
        listener.close()
