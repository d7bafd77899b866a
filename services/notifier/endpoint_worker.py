"""Delivers the events of one endpoint. Each endpoint has a worker of its own, so none waits for another."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from datetime import datetime

import structlog

from services.notifier.deliverer import Deliverer
from services.notifier.lane import Lane
from services.notifier.tail import Entry, Tail
from shared.bus.topology import webhook_due_subject
from shared.bus.webhook_positions import PositionStore
from shared.errors import UnavailableError
from shared.ids import EndpointId
from shared.notifications import Notification
from shared.observability.metrics import WEBHOOK_DELAY
from shared.webhook_endpoints import Delivery, Positions, WebhookEndpoint

_log = structlog.get_logger()

_EVENTS_IN_PROGRESS = 16
_RETRIES_IN_PROGRESS = 4
"""Separate limits, so that an endpoint with many due attempts still gets new events, and vice versa."""

_SAVE_INTERVAL = 0.5
_ERROR_PAUSE = 1.0
_IDLE = 60.0
"""Seconds after which the positions of an endpoint are saved even if no event was sent to it."""

Due = tuple[EndpointId, int, Delivery]
"""An attempt that is due: the endpoint, `WebhookEndpoint.after`, and the delivery."""


class EndpointWorker:
    """Delivers the events of an endpoint until it is stopped.

    Attributes:
        endpoint: its configuration, which may be replaced at any time.
    """

    def __init__(
        self,
        endpoint: WebhookEndpoint,
        events: Tail[Notification],
        due: Tail[Due],
        deliverer: Deliverer,
        positions: PositionStore,
    ) -> None:
        self.endpoint = endpoint
        self._deliverer = deliverer
        self._store = positions
        self._events = Lane(
            events,
            limit=_EVENTS_IN_PROGRESS,
            # Not its bound method, because the configuration may be replaced.
            wanted=lambda notification: self.endpoint.wants(notification),  # noqa: PLW0108
            subject=None,
        )
        self._due = Lane(
            due,
            limit=_RETRIES_IN_PROGRESS,
            wanted=lambda each: each[:2] == (endpoint.id, endpoint.after),
            subject=webhook_due_subject(endpoint.id, endpoint.after, "*"),
        )
        self._saved: Positions | None = None
        self._saved_at = 0.0
        self._has_delivered = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._is_stopping = False

    def stop(self) -> None:
        """Take no more messages. `run` returns when those in progress are finished."""
        self._is_stopping = True
        self._wake.set()

    def abandon(self) -> None:
        """Cancel the requests in progress, which are made again."""
        for task in self._tasks:
            task.cancel()

    async def run(self) -> None:
        lanes = (self._events, self._due)
        for lane in lanes:
            lane.tail.listen(self._wake.set)
        try:
            while not self._is_stopping:
                self._wake.clear()
                try:
                    await self._step()
                except UnavailableError:  # it has been logged already
                    await asyncio.sleep(_ERROR_PAUSE)
                else:
                    await self._until_woken()
            while self._tasks:
                await asyncio.wait(self._tasks)
            with suppress(UnavailableError):
                await self._save()
        finally:
            self.abandon()
            for lane in lanes:
                lane.tail.forget(self._wake.set)

    async def _step(self) -> None:
        if self._saved is None:
            await self._resume()
        if self.endpoint.is_enabled:
            for event in await self._events.take():
                self._start(self._deliver_event(event))
            for due in await self._due.take():
                self._start(self._deliver_due(due))
            if self._events.has_more or self._due.has_more:
                self._wake.set()
        if self._seconds_until_save() <= 0:
            await self._save()

    async def _resume(self) -> None:
        positions = await self._store.get(self.endpoint.id, self.endpoint.after)
        # A stream that was restored from a copy may end before the position.
        for lane, position, finished in (
            (self._events, positions.events, positions.events_finished),
            (self._due, positions.retries, positions.retries_finished),
        ):
            newest = await lane.tail.newest()
            lane.resume(min(position, newest) if newest else position, finished)
        self._saved = positions
        self._saved_at = asyncio.get_running_loop().time()

    def _start(self, delivering: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(delivering)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver_event(self, entry: Entry[Notification]) -> None:
        assert entry.value is not None  # noqa: S101 - a lane takes no others
        stored_at = datetime.fromisoformat(entry.stored_at)
        WEBHOOK_DELAY.observe(max((self._deliverer.clock() - stored_at).total_seconds(), 0))
        await self._deliver(Delivery(notification=entry.value, sequence=entry.sequence))
        self._finish(self._events, entry.sequence)

    async def _deliver_due(self, entry: Entry[Due]) -> None:
        assert entry.value is not None  # noqa: S101 - a lane takes no others
        await self._deliver(entry.value[2])
        self._finish(self._due, entry.sequence)

    async def _deliver(self, delivery: Delivery) -> None:
        while True:
            try:
                await self._deliverer.deliver(self.endpoint, delivery)
            except Exception:  # noqa: BLE001 - after any error the event is delivered again
                _log.exception("webhook_failed", endpoint_id=str(self.endpoint.id))
                await asyncio.sleep(_ERROR_PAUSE)
            else:
                return

    def _finish(self, lane: Lane[Notification] | Lane[Due], sequence: int) -> None:
        lane.finish(sequence)
        self._has_delivered = True
        self._wake.set()

    # --- Positions ---

    @property
    def _positions(self) -> Positions:
        return Positions(
            after=self.endpoint.after,
            events=self._events.floor,
            events_finished=self._events.finished,
            retries=self._due.floor,
            retries_finished=self._due.finished,
        )

    def _seconds_until_save(self) -> float:
        age = asyncio.get_running_loop().time() - self._saved_at
        return (_SAVE_INTERVAL if self._has_delivered else _IDLE) - age

    async def _save(self) -> None:
        positions = self._positions
        self._has_delivered = False
        self._saved_at = asyncio.get_running_loop().time()
        if self._saved is None or positions == self._saved:
            return
        try:
            await self._store.put(self.endpoint.id, positions)
            self._saved = positions
        except UnavailableError:
            self._has_delivered = True
            raise

    async def _until_woken(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(self._seconds_until_save(), 0)):
                await self._wake.wait()
