"""An application that receives webhooks at several endpoints of one server, and behaves as a test asks."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from tests.ports import free_port
from tests.waiting import eventually

_HOUR = 3_600

Respond = Callable[[int], Awaitable[web.Response]]
"""Returns the response to the nth request of an endpoint, from 1."""


@dataclass(frozen=True)
class Webhook:
    """A request that an endpoint has received."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> dict[str, Any]:
        content: dict[str, Any] = orjson.loads(self.body)
        return content


def answering(*statuses: int, headers: Mapping[str, str] | None = None, text: str = "") -> Respond:
    """Respond with these statuses one after another, and then with the last one."""

    async def respond(number: int) -> web.Response:
        return web.Response(status=statuses[min(number, len(statuses)) - 1], headers=headers, text=text)

    return respond


async def hanging(_: int) -> web.Response:
    """Respond when the caller has long given up."""
    await asyncio.sleep(_HOUR)
    return web.Response()


@dataclass
class Receiver:
    """The endpoints of an application, by the path of their URL."""

    port: int
    received: dict[str, list[Webhook]] = field(default_factory=lambda: defaultdict(list))
    responses: dict[str, Respond] = field(default_factory=dict)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"

    async def until(self, name: str, count: int) -> list[Webhook]:
        """Wait until an endpoint has received this many requests, and return them."""

        async def has_all() -> bool:
            return len(self.received[name]) >= count

        await eventually(has_all)
        return self.received[name]

    async def handle(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        # The names in lower case, as the libraries of Standard Webhooks expect them.
        headers = {key.lower(): value for key, value in request.headers.items()}
        self.received[name].append(Webhook(headers, await request.read()))
        return await self.responses.get(name, answering(204))(len(self.received[name]))


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Run an application on a free port."""
    receiver = Receiver(free_port())
    app = web.Application()
    app.router.add_post("/{name}", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", receiver.port).start()
        yield receiver
    finally:
        await runner.cleanup()
