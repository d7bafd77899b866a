"""Runs a worker for each enabled endpoint of this process's share, as endpoints and processes come and go."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from uuid import UUID

import structlog

from services.notifier.deliverer import Deliverer
from services.notifier.endpoint_worker import Due, EndpointWorker
from services.notifier.registry import Registry
from services.notifier.tail import Tail
from shared import supervision
from shared.bus.client import Bus
from shared.bus.direct_get import StoredMessage
from shared.bus.membership import Membership, State
from shared.bus.topology import NOTIFICATION_SUBJECTS, WEBHOOKS_DUE, Stream
from shared.bus.webhook_positions import PositionStore
from shared.ids import EndpointId
from shared.notifications import Notification, read_notification
from shared.webhook_endpoints import Delivery, WebhookEndpoint

_log = structlog.get_logger()

_SHARDS = tuple(f"{number:02}" for number in range(64))
"""Processes divide these among themselves, rather than endpoints, of which there may be many."""

_EVENTS_INTERVAL = 0.1
_DUE_INTERVAL = 0.2
_ASSIGNMENT_INTERVAL = 0.5
_SETTLE_SECONDS = 0.5
"""The time between the announcement that this process holds a shard and its use. Two processes that start at
the same time may both announce a shard, before they have heard of each other."""

_DRAIN_SECONDS = 8
_CANCEL_SECONDS = 2


def shard_of(endpoint: EndpointId) -> str:
    return _SHARDS[endpoint.int % len(_SHARDS)]


class Worker:
    """Delivers the events of the endpoints in `registry` until it is stopped."""

    def __init__(self, bus: Bus, registry: Registry, deliverer: Deliverer, positions: PositionStore) -> None:
        self._registry = registry
        self._deliverer = deliverer
        self._positions = positions
        self._membership = Membership(bus, "notifier")
        self._events: Tail[Notification] = Tail(
            bus, Stream.NOTIFICATIONS, NOTIFICATION_SUBJECTS, _parse_notification, interval=_EVENTS_INTERVAL
        )
        self._due: Tail[Due] = Tail(
            bus, Stream.WEBHOOK_RETRIES, WEBHOOKS_DUE, _parse_due, interval=_DUE_INTERVAL
        )
        self._held: dict[str, float] = {}
        self._served: set[str] = set()
        self._workers: dict[EndpointId, EndpointWorker] = {}
        self._running: dict[EndpointId, asyncio.Task[None]] = {}
        self._background: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._background = [
            supervision.supervise(name, coroutine)
            for name, coroutine in (
                ("events", self._events.run()),
                ("attempts that are due", self._due.run()),
                ("webhook endpoints", self._registry.run()),
                ("membership", self._membership.run()),
                ("assignment", self._keep_assigned()),
            )
        ]

    def unready_reason(self) -> str | None:
        """Return the reason why events cannot be delivered, or None if they can."""
        if not self._registry.is_loaded:
            return "NATS: the webhook endpoints are not known yet"
        are_open = self._events.is_open and self._due.is_open
        return None if are_open else "NATS: the streams are not read yet"

    async def stop(self) -> None:
        """Finish the requests in progress within 8 seconds; the others are made again."""
        *background, membership, assignment = self._background
        supervision.release(assignment).cancel()
        self._membership.set_state(State.LEAVING)
        for worker in self._workers.values():
            worker.stop()
        if self._running:
            await asyncio.wait([*self._running.values()], timeout=_DRAIN_SECONDS)
        for worker in self._workers.values():
            worker.abandon()
        if self._running:
            await asyncio.wait([*self._running.values()], timeout=_CANCEL_SECONDS)
        for task in (*background, membership):
            supervision.release(task).cancel()
        await self._membership.leave()

    async def _keep_assigned(self) -> None:
        changes = (self._membership.changed, self._registry.changed)
        while True:
            supervision.beat()
            for change in changes:
                change.clear()
            self._assign()
            await _first_of(changes, _ASSIGNMENT_INTERVAL)

    def _assign(self) -> None:
        now = asyncio.get_running_loop().time()
        share = set(self._membership.share_of(_SHARDS))
        self._served &= share
        for shard in share - self._served:
            if self._membership.is_held_by_others(shard):
                continue
            if shard not in self._held:
                self._held[shard] = now
                self._membership.hold(shard)
            elif now >= self._held[shard] + _SETTLE_SECONDS:
                self._served.add(shard)
        wanted = {
            endpoint.id: endpoint
            for endpoint in self._registry.endpoints.values()
            if endpoint.is_enabled and shard_of(endpoint.id) in self._served
        }
        self._update(wanted.values())
        for id_, worker in self._workers.items():
            if id_ not in wanted:
                worker.stop()
                if not self._exists(id_):
                    worker.abandon()
        busy = {shard_of(id_) for id_ in self._running}
        for shard in self._held.keys() - share - busy:
            del self._held[shard]
            self._membership.release(shard)

    def _update(self, wanted: Iterable[WebhookEndpoint]) -> None:
        for endpoint in wanted:
            worker = self._workers.get(endpoint.id)
            if worker is None:
                self._run(endpoint)
            elif worker.endpoint.after == endpoint.after:
                worker.endpoint = endpoint
            else:  # it is replaced as soon as it has ended
                worker.stop()
                worker.abandon()

    def _exists(self, id_: EndpointId) -> bool:
        endpoint = self._registry.endpoints.get(id_)
        return endpoint is not None and endpoint.is_enabled

    def _run(self, endpoint: WebhookEndpoint) -> None:
        worker = EndpointWorker(endpoint, self._events, self._due, self._deliverer, self._positions)
        task = asyncio.create_task(worker.run(), name=f"endpoint {endpoint.id}")
        self._workers[endpoint.id] = worker
        self._running[endpoint.id] = task
        task.add_done_callback(lambda _: self._release(endpoint.id))

    def _release(self, id_: EndpointId) -> None:
        del self._workers[id_]
        task = self._running.pop(id_)
        if not task.cancelled() and (error := task.exception()):
            supervision.fail(f"the worker of an endpoint failed: {error!r}")
        self._membership.changed.set()


def _parse_notification(message: StoredMessage) -> Notification | None:
    return read_notification(message.sequence, message.payload)


def _parse_due(message: StoredMessage) -> Due | None:
    try:
        _, _, endpoint, after, _ = message.subject.split(".")
        delivery = Delivery.model_validate_json(message.payload)
        return EndpointId(UUID(endpoint)), int(after), delivery
    except ValueError:
        _log.error("webhook_delivery_unreadable", sequence=message.sequence)
        return None


async def _first_of(events: Iterable[asyncio.Event], seconds: float) -> None:
    """Wait until one of the events is set, or until the time is over."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        with suppress(TimeoutError):
            await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
