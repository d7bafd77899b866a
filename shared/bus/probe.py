"""Checks at intervals whether NATS answers requests, and stores messages."""

import asyncio
import json
from collections.abc import Mapping

import nats.errors

from shared import supervision
from shared.bus.client import Bus
from shared.bus.publisher import Outgoing, Publisher
from shared.errors import BusUnavailableError

_INTERVAL = 2.0
_TIMEOUT = 3.0
_KEY = "probe"


class Probe:
    """The state of NATS, as of the last check.

    A server whose disk is or was full answers requests, but stores nothing. A connection of which a part has
    failed stays open, but gets no answers: it is replaced after the second one is missing.

    Args:
        bus: the connection.
        subject, question: a request that is always answered.
    """

    def __init__(self, bus: Bus, subject: str, question: Mapping[str, object]) -> None:
        self._bus = bus
        self._subject = subject
        self._question = json.dumps(question).encode()
        self._unanswered = 0
        self._reason: str | None = "NATS: not checked yet"

    @property
    def unready_reason(self) -> str | None:
        """The reason why the service cannot work with NATS, for `/readyz`, or None if it can."""
        return self._reason if self._bus.is_connected else "NATS is not connected"

    async def run(self) -> None:
        """Check until the task is cancelled."""
        while True:
            await supervision.patiently(self._bus.until_connected())
            try:
                await self._ask()
                await self._store()
                self._reason = None
            except BusUnavailableError as exc:
                self._reason = f"NATS: {exc}"
            supervision.beat()
            if not self._unanswered:
                await asyncio.sleep(_INTERVAL)

    async def _ask(self) -> None:
        try:
            request = self._bus.client.request(self._subject, self._question, timeout=_TIMEOUT)
            await supervision.patiently(request)
        except (nats.errors.Error, TimeoutError, OSError) as exc:
            self._unanswered = self._unanswered + 1 if isinstance(exc, TimeoutError) else 0
            if self._unanswered > 1:
                self._unanswered = 0
                self._bus.reconnect()
            raise BusUnavailableError(str(exc) or type(exc).__name__) from exc
        self._unanswered = 0

    async def _store(self) -> None:
        """Store a message, if the service stores any."""


class BucketProbe(Probe):
    """A probe that also writes a key of a bucket, and considers the other publishes of the service."""

    def __init__(self, bus: Bus, publisher: Publisher, bucket: str) -> None:
        self._stream = f"KV_{bucket}"
        self._key = f"$KV.{bucket}.{_KEY}"
        self._publisher = publisher
        super().__init__(bus, f"$JS.API.DIRECT.GET.{self._stream}", {"last_by_subj": self._key})

    @property
    def unready_reason(self) -> str | None:
        outage = self._publisher.outage
        return super().unready_reason or (f"NATS: {outage}" if outage else None)

    async def _store(self) -> None:
        await supervision.patiently(self._publisher.publish(self._stream, Outgoing(self._key, None, b"")))
