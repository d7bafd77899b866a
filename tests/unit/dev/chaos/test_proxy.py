import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from dev.chaos.proxy import Proxy, proxying
from dev.local_stack.ports import free_port
from dev.local_stack.servers import HOST
from tests.waiting import eventually

DEADLINE = 10


class Server:
    """Answers each line with the same line, and records the lines and the connections that ended."""

    def __init__(self) -> None:
        self.port = free_port()
        self.received: list[bytes] = []
        self.ended = 0

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        async for line in reader:
            self.received.append(line)
            writer.write(line)
        self.ended += 1
        writer.close()

    async def has_received(self, *lines: bytes) -> bool:
        return self.received == [*lines]

    async def has_ended(self, connections: int) -> bool:
        return self.ended == connections


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    async with await asyncio.start_server(server.serve, HOST, server.port):
        yield server


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    async with proxying(server.port) as proxy:
        yield proxy


@asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def answer(reader: StreamReader) -> bytes:
    return await asyncio.wait_for(reader.readline(), DEADLINE)


async def pass_through_another_proxy(server: Server) -> None:
    """Give all data that the proxy under test would forward the time to arrive."""
    async with proxying(server.port) as other, connected(other) as (reader, writer):
        writer.write(b"other\n")
        await answer(reader)


async def test_data_and_the_end_of_a_connection_pass(proxy: Proxy, server: Server) -> None:
    async with connected(proxy) as (reader, writer):
        writer.write(b"hello\n")
        assert await answer(reader) == b"hello\n"
    await eventually(lambda: server.has_ended(1))


async def test_no_data_passes_while_the_proxy_is_cut(proxy: Proxy, server: Server) -> None:
    async with connected(proxy) as (reader, writer):
        proxy.cut()
        writer.write(b"late\n")
        await pass_through_another_proxy(server)
        assert server.received == [b"other\n"]
        proxy.heal()
        assert await answer(reader) == b"late\n"


async def test_no_connection_ends_while_the_proxy_is_cut(proxy: Proxy, server: Server) -> None:
    async with connected(proxy) as (reader, writer):
        writer.write(b"hello\n")
        await answer(reader)
        proxy.cut()
    await pass_through_another_proxy(server)
    await eventually(lambda: server.has_ended(1))
    proxy.heal()
    await eventually(lambda: server.has_ended(2))


async def test_a_connection_is_accepted_while_the_proxy_is_cut(proxy: Proxy, server: Server) -> None:
    proxy.cut()
    async with connected(proxy) as (reader, writer):
        writer.write(b"late\n")
        await pass_through_another_proxy(server)
        assert server.received == [b"other\n"]
        proxy.heal()
        assert await answer(reader) == b"late\n"


async def test_data_of_a_closed_connection_arrives_after_the_proxy_is_healed(
    proxy: Proxy, server: Server
) -> None:
    async with connected(proxy) as (reader, writer):
        writer.write(b"hello\n")
        await answer(reader)
        proxy.cut()
        writer.write(b"late\n")
    proxy.heal()
    await eventually(lambda: server.has_received(b"hello\n", b"late\n"))
