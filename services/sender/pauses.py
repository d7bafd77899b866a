"""The pauses that providers have requested, which all sender processes observe.

A pause is stored in a key-value bucket, so that processes that start later can read it. Running processes
subscribe to the subjects of the bucket, and receive it within milliseconds.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import time

import nats.errors
import structlog
from pydantic import FiniteFloat, ValidationError

from shared import supervision
from shared.bus.client import Bus
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import LIMITS_BUCKET, PAUSES_SUBJECT, pause_key
from shared.errors import BusUnavailableError
from shared.message import FrozenModel

_log = structlog.get_logger()

_STREAM = f"KV_{LIMITS_BUCKET}"
_BATCH = 1_000
_RETRY = 1.0
_LONGEST = 86_400.0
"""Seconds: the longest pause that a provider can request."""

_CONNECTION_ERRORS = (nats.errors.Error, OSError, TimeoutError, BusUnavailableError)

Listener = Callable[[str | None, float], None]
"""Called with a sending address, or None for the whole provider, and the seconds of its pause."""


class Pause(FrozenModel):
    """A period in which no requests are made to a provider.

    Attributes:
        provider: the provider.
        sender: the sending address that is paused; None for all of them.
        until: the end, in seconds since the epoch.
    """

    provider: str
    sender: str | None = None
    until: FiniteFloat


class Pauses:
    """The pauses of all providers; `clock` returns seconds since the epoch."""

    def __init__(self, bus: Bus, publisher: Publisher, *, clock: Callable[[], float] = time) -> None:
        self._bus = bus
        self._publisher = publisher
        self._clock = clock
        self._listeners: dict[str, Listener] = {}
        self._known = asyncio.Event()
        self._storing: set[asyncio.Task[None]] = set()

    def listen(self, provider: str, listener: Listener) -> None:
        """Call a function for each pause of a provider."""
        self._listeners[provider] = listener

    async def until_known(self) -> None:
        """Wait until this process knows all pauses: it has read them since it last connected to NATS."""
        await self._known.wait()

    def record(self, provider: str, sender: str | None, seconds: float) -> None:
        """Pause a provider, or a sending address at this provider, in all processes."""
        pause = Pause(provider=provider, sender=sender, until=self._clock() + seconds)
        self._apply(pause)
        storing = asyncio.create_task(self._store(pause))
        self._storing.add(storing)
        storing.add_done_callback(self._storing.discard)

    async def run(self) -> None:
        """Follow the pauses of all processes until the task is cancelled."""
        while True:
            try:
                await supervision.patiently(self._bus.until_connected())
                await self._follow()
            except _CONNECTION_ERRORS as exc:
                if self._bus.is_connected:  # otherwise the connection has already logged the outage
                    _log.warning("pauses_unknown", error=repr(exc))
            await asyncio.sleep(_RETRY)

    async def _follow(self) -> None:
        subscription = await self._bus.client.subscribe(PAUSES_SUBJECT)
        lost = asyncio.create_task(self._bus.until_lost())
        try:
            await self._read()
            self._known.set()
            while not lost.done():
                with suppress(TimeoutError):
                    message = await supervision.patiently(subscription.next_msg(_RETRY))
                    self._take(message.data)
        finally:
            self._known.clear()
            lost.cancel()
            with suppress(*_CONNECTION_ERRORS):
                await subscription.unsubscribe()

    async def _read(self) -> None:
        first, is_complete = 1, False
        while not is_complete:
            answer = await self._bus.next_messages(_STREAM, first, count=_BATCH, subject=PAUSES_SUBJECT)
            for message in answer.messages:
                self._take(message.payload)
                first = message.sequence + 1
            is_complete = answer.is_complete

    def _take(self, payload: bytes) -> None:
        with suppress(ValidationError):
            self._apply(Pause.model_validate_json(payload))

    def _apply(self, pause: Pause) -> None:
        if listener := self._listeners.get(pause.provider):
            listener(pause.sender, min(pause.until - self._clock(), _LONGEST))

    async def _store(self, pause: Pause) -> None:
        # A process that records a shorter pause at the same time may overwrite this one. That affects only
        # processes that start later: the others observe the longer pause.
        subject = f"$KV.{LIMITS_BUCKET}.{pause_key(pause.provider, pause.sender)}"
        payload = pause.model_dump_json().encode()
        with suppress(BusUnavailableError):  # the provider will throttle the other processes, too
            await self._publisher.publish(_STREAM, Outgoing(subject, None, payload))
