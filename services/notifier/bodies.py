"""The bodies of webhooks. Endpoints that are sent the same event share its body."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence

from shared.errors import ServiceError
from shared.ids import EventId
from shared.webhook_endpoints import Delivery

_BATCH = 100
_MAX_BYTES = 32 * 1024 * 1024
"""The size of the bodies that are remembered."""

Render = Callable[[Sequence[Delivery]], Awaitable[Mapping[EventId, bytes]]]
"""Returns the bodies of events, except those whose object was deleted; raises DatabaseUnavailableError."""


class Bodies:
    """Renders events, several at once, and remembers the most recent bodies."""

    def __init__(self, render: Render) -> None:
        self._render = render
        self._waiting: dict[EventId, tuple[Delivery, asyncio.Future[bytes | None]]] = {}
        self._known: OrderedDict[EventId, bytes] = OrderedDict()
        self._size = 0
        self._rendering: asyncio.Task[None] | None = None

    async def of(self, delivery: Delivery) -> bytes | None:
        """Return the body of an event, or None if its object was deleted.

        Raises:
            DatabaseUnavailableError: PostgreSQL does not respond.
        """
        id_ = delivery.notification.id
        if id_ in self._known:
            self._known.move_to_end(id_)
            return self._known[id_]
        if id_ not in self._waiting:
            self._waiting[id_] = delivery, asyncio.get_running_loop().create_future()
        _, body = self._waiting[id_]
        if self._rendering is None or self._rendering.done():
            self._rendering = asyncio.create_task(self._render_waiting())
        return await asyncio.shield(body)

    async def _render_waiting(self) -> None:
        await asyncio.sleep(0)  # callers in the same iteration of the event loop share a batch
        while self._waiting:
            batch = [*self._waiting.values()][:_BATCH]
            try:
                bodies = await self._render([delivery for delivery, _ in batch])
            except Exception as exc:  # noqa: BLE001 - it is raised where the bodies are awaited
                error = exc if isinstance(exc, ServiceError) else RuntimeError(f"rendering failed: {exc!r}")
                for delivery, future in batch:
                    del self._waiting[delivery.notification.id]
                    future.set_exception(error)
                    future.exception()  # retrieved, in case nobody waits any more
            else:
                for delivery, future in batch:
                    id_ = delivery.notification.id
                    del self._waiting[id_]
                    body = bodies.get(id_)
                    if body is not None:
                        self._remember(id_, body)
                    future.set_result(body)

    def _remember(self, id_: EventId, body: bytes) -> None:
        self._known[id_] = body
        self._size += len(body)
        while self._size > _MAX_BYTES:
            _, oldest = self._known.popitem(last=False)
            self._size -= len(oldest)
