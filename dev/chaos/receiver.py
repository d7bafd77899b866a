"""An application that receives webhooks at many endpoints, some of which are dead."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import orjson
from aiohttp import web

from dev.local_stack.ports import free_port
from dev.local_stack.servers import HOST

_DEAD_TENTHS = {0: "hanging", 1: "failing"}
_GONE_TWENTIETH = 4
_HOUR = 3_600


class Behaviour(StrEnum):
    HEALTHY = "healthy"
    HANGING = "hanging"
    FAILING = "failing"
    GONE = "gone"


def behaviour_of(number: int) -> Behaviour:
    """Return how an endpoint behaves: out of twenty, two hang, two respond with 500, and one is gone."""
    if number % 20 == _GONE_TWENTIETH:
        return Behaviour.GONE
    return Behaviour(_DEAD_TENTHS.get(number % 10, "healthy"))


@dataclass
class Receiver:
    """The endpoints, by their numbers.

    Attributes:
        bodies: the bodies that each healthy endpoint has received, by the id of the event.
        repeated: the number of events that a healthy endpoint has received again.
        differing: the number of events that were different when they were received again.
        delays: for each first receipt, its time according to `time.time`, and the seconds since the event.
        spreads: for each first receipt, the seconds since the first endpoint received the event.
        requests: the number of requests to endpoints of each behaviour.
    """

    port: int
    bodies: dict[int, dict[str, bytes]] = field(default_factory=lambda: defaultdict(dict))
    repeated: int = 0
    differing: int = 0
    delays: list[tuple[float, float]] = field(default_factory=list)
    spreads: list[tuple[float, float]] = field(default_factory=list)
    _first_at: dict[str, float] = field(default_factory=dict)
    requests: Counter[Behaviour] = field(default_factory=Counter)

    def url(self, number: int) -> str:
        return f"http://{HOST}:{self.port}/{number}"

    async def handle(self, request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        behaviour = behaviour_of(number)
        self.requests[behaviour] += 1
        body = await request.read()
        match behaviour:
            case Behaviour.HANGING:
                await asyncio.sleep(_HOUR)
            case Behaviour.FAILING:
                return web.Response(status=500)
            case Behaviour.GONE:
                return web.Response(status=410)
        self._record(number, request.headers["webhook-id"], body)
        return web.Response(status=204)

    def _record(self, number: int, id_: str, body: bytes) -> None:
        known = self.bodies[number].setdefault(id_, body)
        if known is not body:
            self.repeated += 1
            self.differing += known != body
            return
        now = time.time()
        self.spreads.append((now, now - self._first_at.setdefault(id_, now)))
        self.delays.append((now, now - datetime.fromisoformat(orjson.loads(body)["timestamp"]).timestamp()))


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Run the application on a free port."""
    receiver = Receiver(free_port())
    app = web.Application()
    app.router.add_post("/{number}", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, receiver.port, backlog=1_024).start()
        yield receiver
    finally:
        await runner.cleanup()
