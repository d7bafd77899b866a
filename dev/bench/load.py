"""A load generator that runs as its own process, with a minimal HTTP client.

    python -m dev.bench.load <kind> <port> <requests> [rate]

Without a rate, each connection sends its next request as soon as it has the response to the last one. With a
rate, in requests per second, requests begin at regular intervals as long as a connection is free. The client
implements no more of HTTP than it needs; its own CPU usage is in its output.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from itertools import count, islice
from typing import cast
from urllib.parse import urlencode
from uuid import uuid4

import uvloop

from dev.bench.samples import send_request, webhook

CONNECTIONS = 64
BATCH = 500
"""Messages."""

_CONVERSATIONS = 500
_SUCCESS = b"HTTP/1.1 2"
_LENGTH = b"content-length:"
_HEAD_END = b"\r\n\r\n"
_TIME_LIMIT = 300
_UNIQUE = "00000000-unique-00000000"


@dataclass(frozen=True)
class Load:
    """The result of the requests.

    Attributes:
        refused: requests that were not answered with a 2xx.
        busy: CPU time of the load generator, as a share of the elapsed time.
    """

    requests: int
    refused: int
    seconds: float
    busy: float


class _Connection(asyncio.Protocol):
    def __init__(self, idle: "asyncio.Queue[_Connection | Exception]") -> None:
        self.refused = 0
        self._idle = idle
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's transports have no base class
        self._idle.put_nowait(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head_end = self._received.find(_HEAD_END)
        if head_end < 0:
            return
        head = self._received[:head_end].lower()
        length = int(head[head.index(_LENGTH) + len(_LENGTH) :].split(b"\r\n", 1)[0])
        if len(self._received) < head_end + len(_HEAD_END) + length:
            return
        self.refused += not self._received.startswith(_SUCCESS)
        self._received = b""
        self._idle.put_nowait(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._idle.put_nowait(exc or ConnectionError("the server closed a connection"))


async def _run(port: int, requests: Iterator[bytes], rate: float | None) -> Load:
    loop = asyncio.get_running_loop()
    idle: asyncio.Queue[_Connection | Exception] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        await loop.create_connection(lambda: _Connection(idle), "127.0.0.1", port)
    started, busy, sent = loop.time(), time.process_time(), 0
    async with asyncio.timeout(_TIME_LIMIT):
        for sent, request in enumerate(requests, start=1):
            if rate and (wait := started + sent / rate - loop.time()) > 0:
                await asyncio.sleep(wait)
            (await _next(idle)).transport.write(request)
        connections = [await _next(idle) for _ in range(CONNECTIONS)]
    seconds = loop.time() - started
    refused = sum(connection.refused for connection in connections)
    return Load(sent, refused, seconds, (time.process_time() - busy) / seconds)


async def _next(idle: "asyncio.Queue[_Connection | Exception]") -> _Connection:
    connection = await idle.get()
    if isinstance(connection, Exception):
        raise connection
    return connection


def _requests(kind: str) -> Iterator[bytes]:
    """Yield requests endlessly. Webhooks differ in the provider's message id."""
    run = uuid4().hex[:8]
    templates = [_template(kind, number) for number in range(_CONVERSATIONS)]
    for number in count():
        unique = f"{run}-unique-{number:08}".encode()
        yield templates[number % _CONVERSATIONS].replace(_UNIQUE.encode(), unique)


def _template(kind: str, number: int) -> bytes:
    match kind:
        case "bare":
            return _post("/messages", send_request(number))
        case "send":
            return _post("/api/messages/sms", send_request(number))
        case "batch":
            return _batch()
        case "webhook":
            return _post("/api/webhooks/sms", webhook(number, _UNIQUE))
        case "kannel":
            sms = send_request(number)
            query = {"username": "bench", "password": "bench", "from": sms["from"], "to": sms["to"]}
            target = f"/cgi-bin/sendsms?{urlencode({**query, 'text': sms['body']})}"
            return f"GET {target} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()
    raise ValueError(kind)


@cache
def _batch() -> bytes:
    return _post("/api/messages/batch", {"messages": [send_request(number) for number in range(BATCH)]})


def _post(path: str, payload: object) -> bytes:
    body = json.dumps(payload).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def main() -> None:
    kind, port, number, *rate = sys.argv[1:]
    requests = islice(_requests(kind), int(number))
    load = uvloop.run(_run(int(port), requests, float(rate[0]) if rate else None))
    print(json.dumps(asdict(load)))


if __name__ == "__main__":
    main()
