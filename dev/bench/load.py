"""A load generator that runs as its own process, with a minimal HTTP client.

    python -m dev.bench.load <port> <path> <requests> <connections>

Each connection sends its next request as soon as it has the response to the last one. The client implements
no more of HTTP than it needs, so that the server is the bottleneck; its own CPU usage is in its output.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from typing import cast

import uvloop

from dev.bench.samples import CONVERSATIONS, send_request

_ACCEPTED = b"HTTP/1.1 202"
_LENGTH = b"content-length:"
_HEAD_END = b"\r\n\r\n"
_TIME_LIMIT = 30


@dataclass(frozen=True)
class Load:
    """The result of the requests.

    Attributes:
        refused: requests that were not answered with 202.
        busy: CPU time of the load generator, as a share of the elapsed time.
    """

    requests: int
    refused: int
    seconds: float
    busy: float

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


class _Connection(asyncio.Protocol):
    def __init__(self, requests: Iterator[bytes]) -> None:
        self.refused = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports have no base class
        self._send_next()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head_end = self._received.find(_HEAD_END)
        if head_end < 0:
            return
        head = self._received[:head_end].lower()
        length = int(head[head.index(_LENGTH) + len(_LENGTH) :].split(b"\r\n", 1)[0])
        if len(self._received) < head_end + len(_HEAD_END) + length:
            return
        self.refused += not self._received.startswith(_ACCEPTED)
        self._received = b""
        self._send_next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed a connection"))

    def _send_next(self) -> None:
        if request := next(self._requests, None):
            self._transport.write(request)
        elif not self.done.done():
            self.done.set_result(None)
            self._transport.close()


async def _run(port: int, path: str, count: int, connections: int) -> Load:
    requests = islice(cycle([_request(path, number) for number in range(CONVERSATIONS)]), count)
    loop = asyncio.get_running_loop()
    started, busy = time.perf_counter(), time.process_time()
    opened = [
        (await loop.create_connection(lambda: _Connection(requests), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    async with asyncio.timeout(_TIME_LIMIT):
        await asyncio.gather(*(connection.done for connection in opened))
    seconds = time.perf_counter() - started
    refused = sum(connection.refused for connection in opened)
    return Load(count, refused, seconds, (time.process_time() - busy) / seconds)


def _request(path: str, number: int) -> bytes:
    body = json.dumps(send_request(number)).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def main() -> None:
    port, path, count, connections = sys.argv[1:]
    load = uvloop.run(_run(int(port), path, int(count), int(connections)))
    print(json.dumps(asdict(load)))


if __name__ == "__main__":
    main()
