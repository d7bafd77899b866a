"""The endpoints, as the gateway has configured them; changes are noticed within half a second."""

import asyncio
from collections.abc import Mapping

import structlog

from shared import supervision
from shared.bus.client import Bus
from shared.bus.webhook_endpoints import EndpointStore
from shared.errors import BusUnavailableError
from shared.ids import EndpointId
from shared.observability.metrics import WEBHOOK_ENDPOINTS
from shared.webhook_endpoints import WebhookEndpoint

_log = structlog.get_logger()

_INTERVAL = 0.4
_ERROR_PAUSE = 0.5
_READ_ALL_EVERY = 100
"""The number of reads between full reads, in case the bucket was replaced by an older copy."""


class Registry:
    """The endpoints that exist.

    Attributes:
        changed: set when an endpoint may have changed.
        is_loaded: whether all endpoints were read.
    """

    def __init__(self, bus: Bus, store: EndpointStore) -> None:
        self._bus = bus
        self._store = store
        self._endpoints: dict[EndpointId, WebhookEndpoint] = {}
        self._revision = 0
        self.changed = asyncio.Event()
        self.is_loaded = False

    @property
    def endpoints(self) -> Mapping[EndpointId, WebhookEndpoint]:
        return self._endpoints

    async def run(self) -> None:
        """Follow the changes until the task is cancelled."""
        reads = 0
        while True:
            supervision.beat()
            try:
                await supervision.patiently(self._bus.until_connected())
                await supervision.patiently(self._read(everything=reads % _READ_ALL_EVERY == 0))
                reads += 1
            except BusUnavailableError as exc:
                if self._bus.is_connected:
                    _log.warning("webhook_endpoints_unavailable", error=str(exc))
                await asyncio.sleep(_ERROR_PAUSE)
            await asyncio.sleep(_INTERVAL)

    async def _read(self, *, everything: bool) -> None:
        found, revision = await self._store.changes(0 if everything else self._revision)
        if everything:
            self._endpoints.clear()
        for endpoint in found:
            if endpoint.is_deleted:
                self._endpoints.pop(endpoint.id, None)
            else:
                self._endpoints[endpoint.id] = endpoint
        self._revision = revision
        self.is_loaded = True
        if found:
            self._export()
            self.changed.set()

    def _export(self) -> None:
        enabled = sum(endpoint.is_enabled for endpoint in self._endpoints.values())
        WEBHOOK_ENDPOINTS.labels("enabled").set(enabled)
        WEBHOOK_ENDPOINTS.labels("disabled").set(len(self._endpoints) - enabled)
