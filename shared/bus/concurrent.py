"""The loop that reads a consumer and processes many of its messages at the same time.

Messages with the same key are processed one after another, in the order of the stream. A message that cannot
be
processed yet keeps its place: it waits in this process, and those with the same key behind it. Only a process
that stops returns messages to the server, so that the server's count of deliveries is one of crashes.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import uniform

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from shared.bus.client import Bus
from shared.bus.consumer import Done, HandBack, Outcome, StreamMessage, stream_message
from shared.bus.topology import ACK_WAIT, PIN_GROUP, Consumer
from shared.errors import NotNowError

_log = structlog.get_logger()

_REQUEST_EXPIRES = 30.0
"""Seconds after which the server ends a request for messages."""

_EXPIRES_GRACE = 5.0
_ERROR_PAUSE = 1.0
_IDLE_PAUSE = (0.5, 1.5)
"""The pause between two looks at whether reading is possible; random, so that loops learn from each other."""

_FIRST_RETRY = 0.1
_LAST_RETRY = 5.0
_HEARTBEAT = ACK_WAIT.total_seconds() / 3
_CONNECTION_ERRORS = (nats.errors.Error, TimeoutError, OSError)

_WRONG_PIN = "423"

Process = Callable[[StreamMessage], Awaitable[Outcome]]


class ConcurrentReader:
    """Reads a consumer until it is stopped.

    Args:
        bus: the connection.
        consumer: the consumer; a pinned one serves only one process at a time.
        process: processes one message. It may raise NotNowError, and is then called again after a pause.
        capacity: messages that are processed or wait for that at the same time, at most.
        key_of: returns the key of a message; those with the same one are processed in order.
        may_read: returns whether messages can be processed. While they cannot, they stay in the stream.
    """

    def __init__(
        self,
        bus: Bus,
        consumer: Consumer,
        process: Process,
        *,
        capacity: int,
        key_of: Callable[[StreamMessage], str | None] = lambda _: None,
        may_read: Callable[[], bool] = lambda: True,
    ) -> None:
        self._bus = bus
        self._consumer = consumer
        self._process = process
        self._key_of = key_of
        self._may_read = may_read
        self._max_capacity = capacity
        # A message that crashes its process takes as few others with it as possible: the first is read alone.
        self._capacity = 1
        self._requested = 0
        self._expected_by = 0.0
        self._pin: str | None = None
        self._in_progress: dict[asyncio.Task[None], Msg] = {}
        self._last_of_key: dict[str, asyncio.Task[None]] = {}
        self._room = asyncio.Event()
        self._stopping = asyncio.Event()

    @property
    def is_idle(self) -> bool:
        return not self._in_progress

    def stop(self) -> None:
        """Read no more messages, return those that have not been started, and finish the others."""
        self._stopping.set()
        self._room.set()

    async def run(self) -> None:
        """Read until the reader is stopped and every message in progress is finished."""
        beating = asyncio.create_task(self._beat())
        try:
            while not self._stopping.is_set():
                try:
                    await self._read()
                except Exception as exc:  # noqa: BLE001 - no error may stop the loop
                    if self._bus.is_connected:  # otherwise the connection has already logged the outage
                        _log.warning("consumer_failed", consumer=self._consumer.name, error=repr(exc))
                    await self._pause(_ERROR_PAUSE)
            while self._in_progress:
                await asyncio.wait(list(self._in_progress))
        except asyncio.CancelledError:
            await self._abandon()
            raise
        finally:
            beating.cancel()
        if self._consumer.is_pinned:
            await self._unpin()

    async def _read(self) -> None:
        await self._until_connected_or_stopped()
        if self._stopping.is_set():
            return
        client = self._bus.client
        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox, cb=self._receive)
        self._requested = 0
        try:
            while not self._stopping.is_set():
                if not self._may_read():
                    if self._requested:
                        return  # the server drops a request that nobody listens for any more
                    await self._pause(uniform(*_IDLE_PAUSE))
                    continue
                await self._request_more(client, inbox)
                self._room.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._room.wait(), 1.0)
        finally:
            await self._unsubscribe(subscription)

    async def _request_more(self, client: Client, inbox: str) -> None:
        now = asyncio.get_running_loop().time()
        if self._requested and now > self._expected_by:
            self._requested = 0  # the connection was lost with the request
        free = self._capacity - len(self._in_progress) - self._requested
        if free <= 0 or (self._requested and free < self._capacity // 4):
            return
        request: dict[str, object] = {"batch": free, "expires": int(_REQUEST_EXPIRES * 1e9)}
        if self._consumer.is_pinned:
            request["group"] = PIN_GROUP
            if self._pin:
                request["id"] = self._pin
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._consumer.stream}.{self._consumer.name}"
        await client.publish(subject, json.dumps(request).encode(), reply=inbox)
        self._requested += free
        self._expected_by = now + _REQUEST_EXPIRES + _EXPIRES_GRACE

    async def _receive(self, msg: Msg) -> None:
        headers = msg.headers or {}
        if not msg.reply:  # the server ends a request
            self._requested = max(
                0, self._requested - int(headers.get("Nats-Pending-Messages", self._requested))
            )
            if headers.get("Status") == _WRONG_PIN:
                self._pin = None
                self._requested = 0
            self._room.set()
            return
        self._requested = max(0, self._requested - 1)
        self._pin = headers.get("Nats-Pin-Id", self._pin)
        if self._stopping.is_set() or not self._may_read():
            with suppress(*_CONNECTION_ERRORS):
                await msg.nak()
            return
        self._start(msg)

    def _start(self, msg: Msg) -> None:
        message = stream_message(msg, self._consumer)
        key = self._key_of(message)
        before = self._last_of_key.get(key) if key else None
        task = asyncio.create_task(self._finish(msg, message, before))
        self._in_progress[task] = msg
        if key:
            self._last_of_key[key] = task
        task.add_done_callback(lambda done: self._forget(done, key))

    def _forget(self, task: asyncio.Task[None], key: str | None) -> None:
        self._in_progress.pop(task, None)
        if key and self._last_of_key.get(key) is task:
            del self._last_of_key[key]
        self._capacity = min(2 * self._capacity, self._max_capacity)
        self._room.set()

    async def _finish(self, msg: Msg, message: StreamMessage, before: asyncio.Task[None] | None) -> None:
        """Process a message until it is done, or until it is returned because the process stops."""
        if before is not None:
            await asyncio.wait({before})
        outcome: Outcome = HandBack()
        retry = _FIRST_RETRY
        while not self._stopping.is_set():
            try:
                outcome = await self._process(message)
            except NotNowError as exc:
                _log.warning("handler_unavailable", consumer=self._consumer.name, error=str(exc), pause=retry)
                await self._pause(retry)
                retry = min(2 * retry, _LAST_RETRY)
                continue
            except Exception:  # after any error the message is delivered again
                # The server's limit of deliveries makes it a dead letter if it goes on.
                _log.exception("handler_failed", consumer=self._consumer.name)
                with suppress(*_CONNECTION_ERRORS):
                    await msg.nak(_ERROR_PAUSE)
                return
            if isinstance(outcome, Done):
                with suppress(*_CONNECTION_ERRORS):  # if it is delivered again, the ledger has the outcome
                    await msg.ack()
                return
            await self._pause(outcome.delay.total_seconds())
        with suppress(*_CONNECTION_ERRORS):
            await msg.nak()

    async def _abandon(self) -> None:
        """Return the messages that are not finished in time: another process can have them at once."""
        unfinished = dict(self._in_progress)
        for task in unfinished:
            task.cancel()
        for msg in unfinished.values():
            with suppress(*_CONNECTION_ERRORS):
                await msg.nak()

    async def _beat(self) -> None:
        """Report to the server at intervals that the messages are being processed."""
        while True:
            await asyncio.sleep(_HEARTBEAT)
            for msg in list(self._in_progress.values()):
                with suppress(*_CONNECTION_ERRORS, nats.errors.MsgAlreadyAckdError):
                    await msg.in_progress()

    async def _unsubscribe(self, subscription: Subscription) -> None:
        # Draining receives what the server has sent already, which is then returned.
        with suppress(*_CONNECTION_ERRORS):
            await asyncio.wait_for(subscription.drain(), 1.0)  # type: ignore[no-untyped-call] # in nats-py

    async def _unpin(self) -> None:
        """Let another process read the consumer at once."""
        if self._pin is None:
            return
        subject = f"$JS.API.CONSUMER.UNPIN.{self._consumer.stream}.{self._consumer.name}"
        with suppress(*_CONNECTION_ERRORS, NotNowError):
            await self._bus.client.publish(subject, json.dumps({"group": PIN_GROUP}).encode())
        self._pin = None

    async def _until_connected_or_stopped(self) -> None:
        connected = asyncio.create_task(self._bus.until_connected())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({connected, stopping}, return_when=asyncio.FIRST_COMPLETED)
        connected.cancel()
        stopping.cancel()

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
