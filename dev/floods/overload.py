"""A load generator of many clients, each of which sends its next request as soon as it has a response.

python -m dev.floods.overload <port> <clients> <seconds>
"""

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from itertools import count
from typing import cast

import uvloop

from dev.bench.samples import send_request
from dev.local_stack.servers import HOST

_RECONNECT_AFTER = 0.2
_TEMPLATES = 500


@dataclass(frozen=True)
class Result:
    """The responses that the clients got; times are in seconds.

    Attributes:
        accepted: responses with a 2xx.
        shed: responses with a 503.
        failed: other responses, and requests that got none.
    """

    clients: int
    seconds: float
    accepted: int
    shed: int
    failed: int
    accepted_p50: float
    accepted_p99: float
    shed_p50: float
    shed_p99: float


class _Run:
    def __init__(self, port: int) -> None:
        self.port = port
        self.loop = asyncio.get_running_loop()
        self.times: dict[str, list[float]] = {"2": [], "5": [], "other": []}
        self.failed = 0
        self.is_over = False
        self._requests = [_post("/api/messages/sms", send_request(number)) for number in range(_TEMPLATES)]
        self._numbers = count()

    def next_request(self) -> bytes:
        return self._requests[next(self._numbers) % _TEMPLATES]


class _Client(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self._run = run
        self._received = b""
        self._sent_at = 0.0
        self._is_waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def _send(self) -> None:
        if self._run.is_over:
            self._transport.abort()
            return
        self._is_waiting = True
        self._sent_at = time.perf_counter()
        self._transport.write(self._run.next_request())

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        kind = head[9:10].decode()
        times = self._run.times.get(kind, self._run.times["other"])
        times.append(time.perf_counter() - self._sent_at)
        self._received = b""
        self._is_waiting = False
        self._send()

    def connection_lost(self, _: Exception | None) -> None:
        run = self._run
        if not run.is_over:
            run.failed += self._is_waiting
            run.loop.call_later(_RECONNECT_AFTER, lambda: run.loop.create_task(connect(run)))


async def connect(run: _Run) -> None:
    if not run.is_over:
        try:
            await run.loop.create_connection(lambda: _Client(run), HOST, run.port)
        except OSError:
            run.failed += 1


def _post(path: str, payload: object) -> bytes:
    body = json.dumps(payload).encode()
    headers = f"host: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return f"POST {path} HTTP/1.1\r\n{headers}\r\n\r\n".encode() + body


async def generate(port: int, clients: int, seconds: float) -> Result:
    run = _Run(port)
    started = time.perf_counter()
    connecting = [asyncio.create_task(connect(run)) for _ in range(clients)]
    await asyncio.sleep(seconds)
    run.is_over = True
    elapsed = time.perf_counter() - started
    for task in connecting:
        task.cancel()
    accepted, shed, other = run.times["2"], run.times["5"], run.times["other"]
    return Result(
        clients=clients,
        seconds=elapsed,
        accepted=len(accepted),
        shed=len(shed),
        failed=len(other) + run.failed,
        accepted_p50=_quantile(accepted, 0.5),
        accepted_p99=_quantile(accepted, 0.99),
        shed_p50=_quantile(shed, 0.5),
        shed_p99=_quantile(shed, 0.99),
    )


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)] if values else float("nan")


def main() -> None:
    port, clients, seconds = sys.argv[1:]
    print(json.dumps(asdict(uvloop.run(generate(int(port), int(clients), float(seconds))))))


if __name__ == "__main__":
    main()
