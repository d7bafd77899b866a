"""The loop that reads a consumer and processes many of its messages at the same time.

Messages with the same key are processed one after another, in the order of the stream. A message that cannot
be processed yet keeps its place: it waits in this process, with those of the same key behind it. Messages are
returned to the server only after an unexpected error, or when the reader stops; see also `keeps_place`.
"""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from random import uniform

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from shared import supervision
from shared.bus.client import Bus
from shared.bus.consumer import StreamMessage, stream_message
from shared.bus.processing import CONFIRMATION_TIMEOUT, CONNECTION_ERRORS, Move, Process, Processing, never
from shared.bus.topology import PIN_GROUP, Consumer

_log = structlog.get_logger()

PATIENCE = 2.0
"""Seconds after `stop` during which messages that were already read are still started."""

_REQUEST_EXPIRES = 1.0
"""Seconds after which the server ends a request for messages. It has to be less than `PATIENCE`: the server
reorders returned messages while it still has a request that it cannot satisfy."""

_ANSWER_TIMEOUT = 3.0
"""Seconds after which a request that the server has not ended is considered lost."""

_LINGER = 0.05
"""The minimum number of seconds between two requests for few messages."""

_BATCH = 256
"""Messages that are requested at once. More of them would delay everything else in the process."""

_GROWTH_INTERVAL = 0.25
"""Seconds after which more messages are read, even if none of the previous ones is finished."""

_MAX_HELD_BYTES = 32 * 1024 * 1024
"""The size of the messages that a reader holds, beyond which it requests no more. A request may exceed it."""

_ERROR_PAUSE = 1.0
_IDLE_PAUSE = (0.5, 1.5)
"""The pause between two calls of `may_read`. It is random, so that one reader can probe for the others."""


_HEARTBEAT_STATUS, _NO_MESSAGES, _TIMED_OUT, _WRONG_PIN = "100", "404", "408", "423"
_NO_RESPONDERS, _CONSUMER_DELETED = "503", "Consumer Deleted"


class _RequestError(Exception):
    """The server rejected a request for messages."""


class _ConsumerMissingError(Exception):
    """The consumer does not exist."""


class ConcurrentReader:
    """Reads a consumer until it is stopped.

    Args:
        bus: the connection.
        consumer: the consumer; a pinned one serves only one process at a time.
        process: processes one message. If it raises UnavailableError, it is called again after a pause, as
            soon as messages can be processed.
        capacity: the maximum number of messages in this process, including those that wait for others with
            the same key. It only bounds the memory: `process` limits how many are sent concurrently.
        key_of: returns the key of a message; messages with the same key are processed in order.
        may_read: returns whether messages can be processed. While they cannot, they stay in the stream.
        move: called for each message that would be returned unfinished when the reader stops.
        keeps_place: whether a message that is handed back waits in this process, in its place. Otherwise, it
            is returned to the server until its delay is over.
    """

    def __init__(  # noqa: PLR0913 - as keywords
        self,
        bus: Bus,
        consumer: Consumer,
        process: Process,
        *,
        capacity: int,
        key_of: Callable[[StreamMessage], str | None] = lambda _: None,
        may_read: Callable[[], bool] = lambda: True,
        move: Move = never,
        keeps_place: bool = True,
    ) -> None:
        self._bus = bus
        self._consumer = consumer
        self._may_read = may_read
        self._max_capacity = capacity
        # The first message is read alone: if it crashes the process, it interrupts no others.
        self._capacity = 1
        self._processing = Processing(
            bus,
            consumer,
            process,
            key_of=key_of,
            is_able=may_read,
            on_finished=self._make_room,
            move=move,
            keeps_place=keeps_place,
        )
        self._requested = 0
        self._requested_at = 0.0
        self._pin: str | None = None
        self._has_caught_up = False
        self._must_restart = False
        self._error: Exception | None = None

        self._room = asyncio.Event()
        self._close_at = 0.0

    def stop(self) -> None:
        """Read no more messages, start those already read for `PATIENCE`, and return the others."""
        if not self._is_stopping:
            self._close_at = asyncio.get_running_loop().time() + PATIENCE
        self._processing.stop()
        self._room.set()

    @property
    def _is_stopping(self) -> bool:
        return self._processing.stopping.is_set()

    async def run(self) -> None:
        """Read until the reader is stopped and every message is finished or returned."""
        heartbeat = supervision.supervise(
            f"heartbeats of {self._consumer.name}", self._processing.send_heartbeats()
        )
        try:
            while not self._is_stopping:
                supervision.beat()
                try:
                    await self._read()
                except _ConsumerMissingError:
                    # Usually, the number of shards has changed. Metrics report a consumer that stays missing.
                    _log.info("consumer_missing", consumer=self._consumer.name)
                    await self._processing.pause(_ERROR_PAUSE)
                except Exception as exc:  # noqa: BLE001 - no error may stop the loop
                    if self._bus.is_connected:  # otherwise the connection has already logged the outage
                        _log.warning("consumer_failed", consumer=self._consumer.name, error=repr(exc))
                    await self._processing.pause(_ERROR_PAUSE)
            await supervision.patiently(self._processing.finish(self._close_at))
        finally:
            # If this task is cancelled, messages in progress are abandoned; another process may take them.
            await self._processing.abandon()
            supervision.release(heartbeat).cancel()
            await self._processing.return_unsettled()
            await self._unpin()

    # --- Reading ---

    async def _read(self) -> None:
        """Read until a new subscription is needed, or until the reader stops."""
        await self._until_connected_or_stopped()
        if self._is_stopping:
            return
        client = self._bus.client
        inbox = client.new_inbox()
        self._requested, self._must_restart, self._error = 0, False, None
        subscription = await client.subscribe(inbox, cb=self._receive)
        lost = asyncio.create_task(self._bus.until_lost())
        lost.add_done_callback(lambda _: self._restart())
        try:
            while not (self._must_restart or self._is_stopping):
                supervision.beat()
                if not self._look():
                    # The subscription stays: the answer to a request may still be on its way.
                    await self._processing.pause(uniform(*_IDLE_PAUSE))
                    continue
                self._room.clear()
                await self._request_more(client, inbox)
                await self._wait_for_room()
            await self._until_requests_end()
            await self._catch_up(client, inbox)
        finally:
            lost.cancel()
            await self._unsubscribe(subscription)
        if self._error:
            raise self._error

    def _look(self) -> bool:
        """Return whether messages can be processed; if they can, wake those that are waiting for that."""
        if may_read := self._may_read():
            self._processing.wake()
        return may_read

    def _restart(self, error: Exception | None = None) -> None:
        self._must_restart = True
        self._error = self._error or error
        self._room.set()

    @property
    def _free(self) -> int:
        """How many more messages may be requested."""
        if self._processing.held_bytes > _MAX_HELD_BYTES:
            return 0
        return min(self._capacity - len(self._processing.held), _BATCH)

    def _make_room(self) -> None:
        self._grow()
        self._room.set()

    def _grow(self) -> None:
        self._capacity = min(2 * self._capacity, self._max_capacity)

    async def _request_more(self, client: Client, inbox: str) -> None:
        now = asyncio.get_running_loop().time()
        if self._requested:
            if now > self._requested_at + _ANSWER_TIMEOUT:
                self._restart(_RequestError("no answer"))
            return
        free = self._free
        is_little = free < min(self._capacity, _BATCH) // 4
        if free > 0 and not (is_little and now < self._requested_at + _LINGER):
            await self._request(client, inbox, free)

    async def _request(self, client: Client, inbox: str, count: int) -> None:
        request: dict[str, object] = {"batch": count, "expires": int(_REQUEST_EXPIRES * 1e9)}
        if self._consumer.is_pinned:
            request["group"] = PIN_GROUP
            if self._pin:
                request["id"] = self._pin
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._consumer.stream}.{self._consumer.name}"
        await client.publish(subject, json.dumps(request).encode(), reply=inbox)
        self._requested = count
        self._requested_at = asyncio.get_running_loop().time()

    async def _wait_for_room(self) -> None:
        is_full = self._free <= 0
        seconds = _GROWTH_INTERVAL if is_full else 1.0 if self._requested else _LINGER
        try:
            async with asyncio.timeout(seconds):
                await self._room.wait()
        except TimeoutError:
            if is_full:
                self._grow()

    async def _until_requests_end(self) -> None:
        """Wait until the server has ended all requests.

        A message that arrives after the end of the subscription would be lost until it is delivered again.
        """
        time = asyncio.get_running_loop().time
        with suppress(TimeoutError):
            async with asyncio.timeout(self._requested_at + _ANSWER_TIMEOUT - time()):
                while self._requested and not self._must_restart:
                    self._room.clear()
                    await self._room.wait()

    async def _catch_up(self, client: Client, inbox: str) -> None:
        """Receive the messages that an earlier reader has returned, before this one returns any.

        The server delivers returned messages first, in the order in which they were returned. Messages
        that were returned too early would come after later ones of the same conversations.
        """
        while (
            not (self._has_caught_up or self._must_restart)
            and self._consumer.is_pinned
            and self._processing.held
        ):
            await self._request(client, inbox, _BATCH)
            await self._until_requests_end()

    async def _receive(self, msg: Msg) -> None:
        headers = msg.headers or {}
        if msg.reply:
            self._requested = max(0, self._requested - 1)
            self._pin = headers.get("Nats-Pin-Id", self._pin)
            message = stream_message(msg, self._consumer)
            self._has_caught_up |= message.deliveries == 1
            self._processing.start(message, msg.reply)
        else:
            self._end_request(headers.get("Status"), headers)
        self._room.set()

    def _end_request(self, status: str | None, headers: dict[str, str]) -> None:
        if status in {_TIMED_OUT, _NO_MESSAGES}:
            left = int(headers.get("Nats-Pending-Messages", self._requested))
            self._requested = max(0, self._requested - left)
            self._has_caught_up = True  # there was nothing more to deliver
        elif status == _WRONG_PIN:
            self._pin = None
            self._restart()
        elif status == _NO_RESPONDERS or headers.get("Description") == _CONSUMER_DELETED:
            self._restart(_ConsumerMissingError())
        elif status != _HEARTBEAT_STATUS:
            self._restart(_RequestError(f"{status} {headers.get('Description', '')}"))

    async def _unsubscribe(self, subscription: Subscription) -> None:
        with suppress(*CONNECTION_ERRORS):
            if self._bus.is_connected:
                # Draining receives the messages that the server has already sent.
                async with asyncio.timeout(1):
                    await subscription.drain()  # type: ignore[no-untyped-call] # in nats-py
            else:
                await subscription.unsubscribe()

    # --- Stopping ---

    async def _unpin(self) -> None:
        """Let the consumer serve another process immediately."""
        if self._pin is None:
            return
        subject = f"$JS.API.CONSUMER.UNPIN.{self._consumer.stream}.{self._consumer.name}"
        with suppress(*CONNECTION_ERRORS):
            request = json.dumps({"group": PIN_GROUP}).encode()
            await self._bus.client.request(subject, request, timeout=CONFIRMATION_TIMEOUT)

    # --- Waiting ---

    async def _until_connected_or_stopped(self) -> None:
        connected = asyncio.create_task(self._bus.until_connected())
        stopping = asyncio.create_task(self._processing.stopping.wait())
        waiting = asyncio.wait({connected, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await supervision.patiently(waiting)
        connected.cancel()
        stopping.cancel()
