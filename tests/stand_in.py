"""A server that records its requests and answers as a test specifies, even with half of a response."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class ReceivedRequest:
    """A request; the names of its headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """An answer.

    Attributes:
        ending: whether the whole answer is sent, or the server closes the connection without an answer
            (`drop`), never answers (`hang`), or closes the connection before the end of the body (`break`).
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    ending: Literal["whole", "drop", "hang", "break"] = "whole"


class StandIn:
    """The server.

    Attributes:
        requests: in the order of their arrival.
        answer: returns the answer to each request.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.requests: list[ReceivedRequest] = []
        self.answer: Callable[[ReceivedRequest], Answer] = lambda _: Answer()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await _read(reader)
            self.requests.append(request)
            await _write(writer, self.answer(request), reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def standing_in(tls: ssl.SSLContext | None = None) -> AsyncIterator[StandIn]:
    stand_ins: list[StandIn] = []
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        await stand_ins[0].serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    stand_ins.append(StandIn(server.sockets[0].getsockname()[1]))
    async with server:
        yield stand_ins[0]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> ReceivedRequest:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return ReceivedRequest(method, path, headers, body)


async def _write(writer: asyncio.StreamWriter, answer: Answer, reader: asyncio.StreamReader) -> None:
    if answer.ending == "drop":
        return
    if answer.ending == "hang":
        await reader.read()
        return
    length = len(answer.body) + (answer.ending == "break")
    headers = {"Content-Length": str(length), "Connection": "close", **answer.headers}
    lines = [f"HTTP/1.1 {answer.status} Status", *(f"{name}: {value}" for name, value in headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + answer.body)
    await writer.drain()
