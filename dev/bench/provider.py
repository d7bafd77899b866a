"""Run a provider that does nothing but wait, so that it costs as little as possible.

    python -m dev.bench.provider <port>

It accepts every request after its latency. `PUT /latency/<milliseconds>` sets the latency and resets the
counts, `GET /stats` returns the counts, and `GET /arrivals` returns the time of each request by its
idempotency key.
It implements no more of HTTP than the clients here need.
"""

import asyncio
import json
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import cast

import uvloop

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"
_KEY = b"idempotency-key:"


@dataclass
class Stats:
    """The counts of the provider.

    Attributes:
        accepted: requests that were answered.
        waited: seconds that they took.
        in_progress: requests that wait for their response.
        busy: `in_progress`, integrated over time, in seconds.
    """

    accepted: int = 0
    waited: float = 0
    in_progress: int = 0
    busy: float = 0


class Provider:
    def __init__(self) -> None:
        self.latency = 0.0
        self.stats = Stats()
        self.arrivals: dict[str, float] = {}
        self._changed_at = time.perf_counter()

    def reset(self, latency: float) -> None:
        self.latency = latency
        self.stats = Stats(in_progress=self.stats.in_progress)
        self.arrivals = {}
        self._changed_at = time.perf_counter()

    def change(self, difference: int) -> float:
        """Change the number of requests in progress, and return the current time."""
        now = time.perf_counter()
        self.stats.busy += self.stats.in_progress * (now - self._changed_at)
        self.stats.in_progress += difference
        self._changed_at = now
        return now


class _Connection(asyncio.Protocol):
    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._started: deque[float] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports have no base class

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (head_end := self._received.find(_HEAD_END)) >= 0:
            head = self._received[:head_end]
            end = head_end + len(_HEAD_END) + int(_header(head, _LENGTH) or 0)
            if len(self._received) < end:
                return
            self._received = self._received[end:]
            self._handle(head)

    def _handle(self, head: bytes) -> None:
        method, target, _ = head.split(b" ", 2)
        provider = self._provider
        match method, target.split(b"/")[1:]:
            case b"PUT", [b"latency", milliseconds]:
                provider.reset(int(milliseconds) / 1_000)
                self._answer({})
            case b"GET", [b"stats"]:
                provider.change(0)
                self._answer(asdict(provider.stats))
            case b"GET", [b"arrivals"]:
                self._answer(provider.arrivals)
            case _:
                self._accept(head)

    def _accept(self, head: bytes) -> None:
        if key := _header(head, _KEY):
            self._provider.arrivals[key.decode().strip('"')] = time.time()
        self._started.append(self._provider.change(1))
        if self._provider.latency:
            self._loop.call_later(self._provider.latency, self._respond)
        else:
            self._respond()

    def _respond(self) -> None:
        stats = self._provider.stats
        stats.waited += self._provider.change(-1) - self._started.popleft()
        stats.accepted += 1
        self._answer({"messaging_provider_id": f"bench-{time.monotonic_ns()}"})

    def _answer(self, content: object) -> None:
        body = json.dumps(content).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)


def _header(head: bytes, name: bytes) -> bytes | None:
    start = head.lower().find(b"\r\n" + name)
    if start < 0:
        return None
    return head[start + 2 + len(name) :].split(b"\r\n", 1)[0].strip()


async def start(provider: Provider, port: int) -> asyncio.Server:
    return await asyncio.get_running_loop().create_server(lambda: _Connection(provider), "127.0.0.1", port)


async def _run(port: int) -> None:
    async with await start(Provider(), port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_run(int(sys.argv[1])))
