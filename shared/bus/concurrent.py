"""The loop that reads a consumer and processes many of its messages at the same time.

Messages with the same key are processed one after another, in the order of the stream. A message that cannot
be processed yet keeps its place: it waits in this process, with those of the same key behind it. Messages are
returned to the server only after an unexpected error, or when the reader stops.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from random import uniform

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from shared import supervision
from shared.bus.client import Bus
from shared.bus.consumer import Done, Outcome, StreamMessage, stream_message
from shared.bus.topology import ACK_WAIT, PIN_GROUP, Consumer
from shared.errors import BusUnavailableError, UnavailableError

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

_SUSPECT_DELIVERIES = 10
"""A message that was delivered this often may be one that crashes the process. It is processed alone."""

_SUSPECT_DELAY = 2.0
_ERROR_PAUSE = 1.0
_IDLE_PAUSE = (0.5, 1.5)
"""The pause between two calls of `may_read`. It is random, so that one reader can probe for the others."""

_FIRST_RETRY = 0.1
_LAST_RETRY = 5.0
_HEARTBEAT = 0.4 * ACK_WAIT.total_seconds()
_HEARTBEAT_CHECK = 0.5
_HEARTBEAT_BURST = 500
"""Heartbeats per check. Even if the heartbeats of all messages of a full reader are due at the same time, the
last one is sent in time."""

_CANCEL_SECONDS = 1.0
_UNPIN_TIMEOUT = 2.0
_ACK, _NAK, _IN_PROGRESS = b"+ACK", b"-NAK", b"+WPI"
_CONNECTION_ERRORS = (nats.errors.Error, TimeoutError, OSError, BusUnavailableError)

_HEARTBEAT_STATUS, _NO_MESSAGES, _TIMED_OUT, _WRONG_PIN = "100", "404", "408", "423"

Begin = Callable[[], None]
"""Called before anything that must not be interrupted; raises ClosedError if it is too late to start."""

Process = Callable[[StreamMessage, Begin], Awaitable[Outcome]]


class ClosedError(Exception):
    """The reader is stopping and starts no more messages."""


class _RequestError(Exception):
    """The server rejected a request for messages."""


@dataclass(eq=False, slots=True)
class _Held:
    """A message in this process. There may be thousands of them, so each should be small.

    Attributes:
        reply: the subject to which the acknowledgement is published.
        key: messages with the same key are processed in order.
        alive_at: when the server was last told that this process has the message, by the loop's clock.
        task: processes it; None while it waits for others with the same key.
        begun: whether processing must not be interrupted.
        settled: whether the message was acknowledged, or returned with a delay.
    """

    message: StreamMessage
    reply: str
    key: str | None
    alive_at: float
    task: asyncio.Task[None] | None = None
    begun: bool = False
    settled: bool = False


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
        # The first message is read alone: if it crashes the process, it interrupts no others.
        self._capacity = 1
        self._held: dict[int, _Held] = {}  # by sequence
        self._held_bytes = 0
        self._lines: dict[str, list[_Held]] = {}  # of each key in progress, the messages that wait for it
        self._running = 0
        self._unsettled: list[_Held] = []
        self._alone = asyncio.Lock()

        self._client: Client | None = None
        self._requested = 0
        self._requested_at = 0.0
        self._pin: str | None = None
        self._has_caught_up = False
        self._must_restart = False
        self._error: str | None = None

        self._room = asyncio.Event()
        self._able = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = asyncio.Event()
        self._close_at = 0.0
        self._is_closed = False
        self._warned_at = 0.0

    def stop(self) -> None:
        """Read no more messages, start those already read for `PATIENCE`, and return the others."""
        if not self._stopping.is_set():
            self._close_at = asyncio.get_running_loop().time() + PATIENCE
        self._stopping.set()
        self._able.set()
        self._room.set()

    async def run(self) -> None:
        """Read until the reader is stopped and every message is finished or returned."""
        heartbeat = supervision.supervise(f"heartbeats of {self._consumer.name}", self._send_heartbeats())
        try:
            while not self._stopping.is_set():
                supervision.beat()
                try:
                    await self._read()
                except Exception as exc:  # noqa: BLE001 - no error may stop the loop
                    if self._bus.is_connected:  # otherwise the connection has already logged the outage
                        _log.warning("consumer_failed", consumer=self._consumer.name, error=repr(exc))
                    await self._pause(_ERROR_PAUSE)
            await supervision.patiently(self._finish())
        finally:
            # If this task is cancelled, messages in progress are abandoned; another process may take them.
            await self._cancel([held.task for held in self._held.values() if held.task])
            supervision.release(heartbeat).cancel()
            await self._return_unsettled()
            await self._unpin()

    # --- Reading ---

    async def _read(self) -> None:
        """Read until a new subscription is needed, or until the reader stops."""
        await self._until_connected_or_stopped()
        if self._stopping.is_set():
            return
        self._client = client = self._bus.client
        inbox = client.new_inbox()
        self._requested, self._must_restart, self._error = 0, False, None
        subscription = await client.subscribe(inbox, cb=self._receive)
        lost = asyncio.create_task(self._bus.until_lost())
        lost.add_done_callback(lambda _: self._restart())
        try:
            while not (self._must_restart or self._stopping.is_set()):
                supervision.beat()
                if not self._look():
                    # The subscription stays: the answer to a request may still be on its way.
                    await self._pause(uniform(*_IDLE_PAUSE))
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
            raise _RequestError(self._error)

    def _look(self) -> bool:
        """Return whether messages can be processed; if they can, wake those that are waiting for that."""
        if may_read := self._may_read():
            self._able.set()
        return may_read

    def _restart(self, error: str | None = None) -> None:
        self._must_restart = True
        self._error = self._error or error
        self._room.set()

    @property
    def _free(self) -> int:
        """How many more messages may be requested."""
        if self._held_bytes > _MAX_HELD_BYTES:
            return 0
        return min(self._capacity - len(self._held), _BATCH)

    def _grow(self) -> None:
        self._capacity = min(2 * self._capacity, self._max_capacity)

    async def _request_more(self, client: Client, inbox: str) -> None:
        now = asyncio.get_running_loop().time()
        if self._requested:
            if now > self._requested_at + _ANSWER_TIMEOUT:
                self._restart("no answer")
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
        while not (self._has_caught_up or self._must_restart) and self._consumer.is_pinned and self._held:
            await self._request(client, inbox, _BATCH)
            await self._until_requests_end()

    async def _receive(self, msg: Msg) -> None:
        headers = msg.headers or {}
        if msg.reply:
            self._requested = max(0, self._requested - 1)
            self._pin = headers.get("Nats-Pin-Id", self._pin)
            self._start(msg)
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
        elif status != _HEARTBEAT_STATUS:
            self._restart(f"{status} {headers.get('Description', '')}")

    async def _unsubscribe(self, subscription: Subscription) -> None:
        with suppress(*_CONNECTION_ERRORS):
            if self._bus.is_connected:
                # Draining receives the messages that the server has already sent.
                async with asyncio.timeout(1):
                    await subscription.drain()  # type: ignore[no-untyped-call] # in nats-py
            else:
                await subscription.unsubscribe()

    # --- Processing ---

    def _start(self, msg: Msg) -> None:
        message = stream_message(msg, self._consumer)
        self._has_caught_up |= message.deliveries == 1
        if held := self._held.get(message.origin.sequence):
            held.reply = msg.reply  # it is still in progress, but its heartbeat was too late
            return
        now = asyncio.get_running_loop().time()
        held = _Held(message, msg.reply, self._key_of(message), alive_at=now)
        self._held[message.origin.sequence] = held
        self._held_bytes += len(message.payload)
        line = self._lines.get(held.key) if held.key else None
        if line is not None:
            line.append(held)
            return
        if held.key:
            self._lines[held.key] = []
        self._launch(held)

    def _launch(self, held: _Held) -> None:
        self._running += 1
        self._idle.clear()
        held.task = asyncio.create_task(self._handle(held))
        held.task.add_done_callback(lambda _: self._forget(held))

    def _forget(self, held: _Held) -> None:
        del self._held[held.message.origin.sequence]
        self._held_bytes -= len(held.message.payload)
        self._running -= 1
        if not held.settled:
            self._unsettled.append(held)
            if not self._stopping.is_set():
                supervision.fail("the processing of a message was cancelled")
        if held.key:
            self._continue_line(held.key, may_go_on=held.settled and not self._is_closed)
        if not self._running:
            self._idle.set()
        self._grow()
        self._room.set()

    def _continue_line(self, key: str, *, may_go_on: bool) -> None:
        """Process the next message with a key, unless the previous one, and thus the rest, is returned."""
        line = self._lines[key]
        if not line:
            del self._lines[key]
        elif may_go_on:
            self._launch(line.pop(0))

    async def _handle(self, held: _Held) -> None:
        """Process a message until it is settled, or until the reader stops."""
        retry = _FIRST_RETRY
        while not self._is_closed:
            try:
                outcome = await self._process_once(held)
            except ClosedError:
                return
            except UnavailableError as exc:
                held.begun = False
                self._warn(exc)
                await self._pause(retry)
                await self._until_able()
                retry = min(2 * retry, _LAST_RETRY)
            except Exception:  # noqa: BLE001 - after any error the message is delivered again
                # If it fails every time, it eventually becomes a dead letter.
                _log.exception("handler_failed", consumer=self._consumer.name)
                await self._settle(held, _NAK + b' {"delay": %d}' % int(_ERROR_PAUSE * 1e9))
                return
            else:
                if isinstance(outcome, Done):
                    await self._settle(held, _ACK)
                    return
                held.begun = False
                await self._pause(outcome.delay.total_seconds())
            if self._stopping.is_set():
                return

    async def _until_able(self) -> None:
        """Wait until messages can be processed or the reader stops."""
        while not (self._may_read() or self._stopping.is_set()):
            self._able.clear()
            await self._able.wait()

    async def _process_once(self, held: _Held) -> Outcome:
        def begin() -> None:
            if self._is_closed and not held.begun:
                raise ClosedError
            held.begun = True

        if held.message.deliveries < _SUSPECT_DELIVERIES:
            return await self._process(held.message, begin)
        # In random order, this message is likely to be done before the one that crashes the process.
        await self._pause(uniform(0, _SUSPECT_DELAY))
        async with self._alone:
            origin = held.message.origin
            _log.warning(
                "message_suspected",
                consumer=origin.consumer,
                sequence=origin.sequence,
                deliveries=held.message.deliveries,
            )
            return await self._process(held.message, begin)

    async def _settle(self, held: _Held, answer: bytes) -> None:
        held.settled = True
        with suppress(*_CONNECTION_ERRORS):  # if it is delivered again, the handler finds that it is done
            await self._reply(held, answer)

    async def _reply(self, held: _Held, answer: bytes) -> None:
        assert self._client is not None  # noqa: S101 - a message was received through it
        await self._client.publish(held.reply, answer)

    def _warn(self, error: UnavailableError) -> None:
        """Log that messages cannot be processed, but not once for each of them."""
        now = asyncio.get_running_loop().time()
        if now >= self._warned_at + _LAST_RETRY or not self._warned_at:
            self._warned_at = now
            _log.warning("handler_unavailable", consumer=self._consumer.name, error=str(error))

    async def _send_heartbeats(self) -> None:
        """Send heartbeats, which tell the server that the messages are still in this process."""
        while True:
            await asyncio.sleep(_HEARTBEAT_CHECK)
            supervision.beat()
            if not self._bus.is_connected:
                continue
            now = asyncio.get_running_loop().time()
            due = (held for held in [*self._held.values()] if held.alive_at < now - _HEARTBEAT)
            for held in islice(due, _HEARTBEAT_BURST):
                held.alive_at = now
                if not held.settled:
                    with suppress(*_CONNECTION_ERRORS):
                        await self._reply(held, _IN_PROGRESS)

    # --- Stopping ---

    async def _finish(self) -> None:
        """Give the messages time, then finish those that have begun, and leave the others."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._close_at):
                await self._idle.wait()
        self._is_closed = True
        await self._cancel([held.task for held in self._held.values() if held.task and not held.begun])
        await self._idle.wait()

    async def _cancel(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)

    async def _return_unsettled(self) -> None:
        """Return the messages that are not finished, in their order."""
        returned = [*self._unsettled, *(held for held in self._held.values() if not held.settled)]
        returned.sort(key=lambda held: held.message.origin.sequence)
        with suppress(*_CONNECTION_ERRORS):
            for held in returned[:-1]:
                await self._reply(held, _NAK)
            for held in returned[-1:]:
                # The server confirms the last one. The consumer may serve another process only after that.
                await self._bus.client.request(held.reply, _NAK, timeout=_UNPIN_TIMEOUT)

    async def _unpin(self) -> None:
        """Let the consumer serve another process immediately."""
        if self._pin is None:
            return
        subject = f"$JS.API.CONSUMER.UNPIN.{self._consumer.stream}.{self._consumer.name}"
        with suppress(*_CONNECTION_ERRORS):
            request = json.dumps({"group": PIN_GROUP}).encode()
            await self._bus.client.request(subject, request, timeout=_UNPIN_TIMEOUT)

    # --- Waiting ---

    async def _until_connected_or_stopped(self) -> None:
        connected = asyncio.create_task(self._bus.until_connected())
        stopping = asyncio.create_task(self._stopping.wait())
        waiting = asyncio.wait({connected, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await supervision.patiently(waiting)
        connected.cancel()
        stopping.cancel()

    async def _pause(self, seconds: float) -> None:
        if seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._stopping.wait()
