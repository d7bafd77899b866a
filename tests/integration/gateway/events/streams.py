"""A client of server-sent events, which can cut its connection at any byte."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Stream:
    """An open stream."""

    status: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    buffer: bytes = b""

    async def take(self, count: int) -> list[dict[str, Any]]:
        """Return the next events, as they are on pages, or fewer if the server ends the stream."""
        found: list[dict[str, Any]] = []
        async with asyncio.timeout(60):
            while len(found) < count and (chunk := await self._chunk()):
                found += self._parse(chunk)
        return found

    async def take_bytes(self, count: int) -> list[dict[str, Any]]:
        """Return the events that are complete in this many bytes, after which the connection is cut."""
        assert self.status == 200
        async with asyncio.timeout(60):
            received, chunks = await self.reader.readexactly(count), b""
        while b"\r\n" in received:
            size, _, rest = received.partition(b"\r\n")
            chunks, received = chunks + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        return self._parse(chunks)

    def _parse(self, received: bytes) -> list[dict[str, Any]]:
        *blocks, self.buffer = (self.buffer + received).split(b"\n\n")
        return [*map(_event, blocks)]

    async def _chunk(self) -> bytes:
        """Return a chunk of the body (RFC 9112, 7.1), which is empty at the end."""
        size = int(await self.reader.readline(), 16)
        return (await self.reader.readexactly(size + 2))[:size]


def _event(block: bytes) -> dict[str, Any]:
    fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if not line.startswith(b":"))
    event: dict[str, Any] = json.loads(fields[b"data"])
    assert (event["sequence"], event["type"]) == (int(fields[b"id"]), fields[b"event"].decode())
    return event


@asynccontextmanager
async def opened(port: int, query: str = "", **headers: str) -> AsyncIterator[Stream]:
    """Open a stream, and cut the connection at the end of the block."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    given = {"host": "gateway", "accept": "text/event-stream", **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in given.items())
    writer.write(f"GET /api/events{query} HTTP/1.1\r\n{head}\r\n".encode())
    try:
        status = int((await reader.readline()).split()[1])
        while await reader.readline() != b"\r\n":
            pass
        yield Stream(status, reader, writer)
    finally:
        writer.transport.abort()
