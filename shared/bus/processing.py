"""Processes the messages of a consumer at the same time, but those with the same key one after another."""

import asyncio
from bisect import insort
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from random import uniform

import nats.errors
import structlog

from shared import supervision
from shared.bus.client import Bus
from shared.bus.consumer import Done, Outcome, StreamMessage
from shared.bus.topology import ACK_WAIT, Consumer
from shared.errors import BusUnavailableError, UnavailableError

_log = structlog.get_logger()

_SUSPECT_DELIVERIES = 10
"""A message that was delivered this often may be one that crashes the process. It is processed alone."""

_SUSPECT_DELAY = 2.0

_FIRST_RETRY = 0.1
_LAST_RETRY = 5.0

_HEARTBEAT = 0.4 * ACK_WAIT.total_seconds()
_HEARTBEAT_CHECK = 0.5
_HEARTBEAT_BURST = 500
"""Heartbeats per check. Even if the heartbeats of all messages of a full reader are due at the same time, the
last one is sent in time."""

_ERROR_PAUSE = 1.0
_CANCEL_SECONDS = 1.0
CONFIRMATION_TIMEOUT = 2.0
_ACK, NAK, _IN_PROGRESS = b"+ACK", b"-NAK", b"+WPI"
CONNECTION_ERRORS = (nats.errors.Error, TimeoutError, OSError, BusUnavailableError)

Begin = Callable[[], None]
"""Called before anything that must not be interrupted; raises ClosedError if it is too late to start."""

Process = Callable[[StreamMessage, Begin], Awaitable[Outcome]]


Move = Callable[[StreamMessage], Awaitable[bool]]
"""Stores a message again, so that its deliveries are counted from the beginning, or returns False."""


async def never(_: StreamMessage) -> bool:
    """Move no message."""
    return False


class ClosedError(Exception):
    """The reader is stopping and starts no more messages."""


@dataclass(eq=False, slots=True)
class Held:
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


class Processing:
    """The messages of a consumer in this process.

    Args:
        bus: the connection.
        consumer: the consumer.
        process: processes one message. If it raises UnavailableError, it is called again after a pause, as
            soon as messages can be processed.
        key_of: returns the key of a message; messages with the same key are processed in order.
        is_able: returns whether messages can be processed.
        on_finished: called whenever a message has left the process.
        move: called for each message that would be returned unfinished.
        keeps_place: whether a message that is handed back waits in this process. Otherwise, it is returned to
            the server, and the number of its deliveries does not show whether it crashes the process.

    Attributes:
        held: the messages, by sequence.
        held_bytes: their size.
        stopping: set when no message is to be tried again.
    """

    def __init__(  # noqa: PLR0913 - as keywords
        self,
        bus: Bus,
        consumer: Consumer,
        process: Process,
        *,
        key_of: Callable[[StreamMessage], str | None],
        is_able: Callable[[], bool],
        on_finished: Callable[[], None],
        move: Move = never,
        keeps_place: bool = True,
    ) -> None:
        self._keeps_place = keeps_place
        self._bus = bus
        self._consumer = consumer
        self._process = process
        self._key_of = key_of
        self._is_able = is_able
        self._on_finished = on_finished
        self._move = move
        self.held: dict[int, Held] = {}
        self.held_bytes = 0
        self.stopping = asyncio.Event()
        self._lines: dict[str, list[Held]] = {}  # of each key in progress, the messages that wait for it
        self._running = 0
        self._unsettled: list[Held] = []
        self._alone = asyncio.Lock()
        self._able = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_closed = False
        self._warned_at = 0.0

    def stop(self) -> None:
        """Let each message finish the attempt in progress, and begin no other."""
        self.stopping.set()
        self._able.set()

    def wake(self) -> None:
        """Continue with the messages that wait until they can be processed."""
        self._able.set()

    def start(self, message: StreamMessage, reply: str) -> None:
        """Process a message, as soon as those before it with the same key are finished."""
        if held := self.held.get(message.origin.sequence):
            held.reply = reply  # it is still in progress, but its heartbeat was too late
            return
        now = asyncio.get_running_loop().time()
        held = Held(message, reply, self._key_of(message), alive_at=now)
        self.held[message.origin.sequence] = held
        self.held_bytes += len(message.payload)
        line = self._lines.get(held.key) if held.key else None
        if line is not None:
            # The server may deliver returned messages in another order, such as after an expired request.
            insort(line, held, key=lambda each: each.message.origin.sequence)
            return
        if held.key:
            self._lines[held.key] = []
        self._launch(held)

    def _launch(self, held: Held) -> None:
        self._running += 1
        self._idle.clear()
        held.task = asyncio.create_task(self._handle(held))
        held.task.add_done_callback(lambda _: self._forget(held))

    def _forget(self, held: Held) -> None:
        del self.held[held.message.origin.sequence]
        self.held_bytes -= len(held.message.payload)
        self._running -= 1
        if not held.settled:
            self._unsettled.append(held)
            if not self.stopping.is_set():
                supervision.fail("the processing of a message was cancelled")
        if held.key:
            self._continue_line(held.key, may_go_on=held.settled and not self._is_closed)
        if not self._running:
            self._idle.set()
        self._on_finished()

    def _continue_line(self, key: str, *, may_go_on: bool) -> None:
        """Process the next message with a key, unless the previous one is returned.

        All that follow it are then returned as well, even those that have not arrived yet.
        """
        line = self._lines[key]
        if not may_go_on:
            return
        if line:
            self._launch(line.pop(0))
        else:
            del self._lines[key]

    async def _handle(self, held: Held) -> None:
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
                await self.pause(retry)
                await self._until_able()
                retry = min(2 * retry, _LAST_RETRY)
            except Exception:  # noqa: BLE001 - after any error the message is delivered again
                # If it fails every time, it eventually becomes a dead letter.
                _log.exception("handler_failed", consumer=self._consumer.name)
                await self._settle(held, _nak(_ERROR_PAUSE))
                return
            else:
                if isinstance(outcome, Done):
                    await self._settle(held, _ACK)
                    return
                if not self._keeps_place:
                    await self._settle(held, _nak(outcome.delay.total_seconds()))
                    return
                held.begun = False
                await self.pause(outcome.delay.total_seconds())
            if self.stopping.is_set():
                return

    async def _until_able(self) -> None:
        """Wait until messages can be processed or the reader stops."""
        while not (self._is_able() or self.stopping.is_set()):
            self._able.clear()
            await self._able.wait()

    async def _process_once(self, held: Held) -> Outcome:
        def begin() -> None:
            if self._is_closed and not held.begun:
                raise ClosedError
            held.begun = True

        if held.message.deliveries < _SUSPECT_DELIVERIES or not self._keeps_place:
            return await self._process(held.message, begin)
        # In random order, this message is likely to be done before the one that crashes the process.
        await self.pause(uniform(0, _SUSPECT_DELAY))
        async with self._alone:
            origin = held.message.origin
            _log.warning(
                "message_suspected",
                consumer=origin.consumer,
                sequence=origin.sequence,
                deliveries=held.message.deliveries,
            )
            return await self._process(held.message, begin)

    async def _settle(self, held: Held, answer: bytes) -> None:
        held.settled = True
        with suppress(*CONNECTION_ERRORS):  # if it is delivered again, the handler finds that it is done
            await self._reply(held, answer)

    async def _reply(self, held: Held, answer: bytes) -> None:
        await self._bus.client.publish(held.reply, answer)

    def _warn(self, error: UnavailableError) -> None:
        """Log that messages cannot be processed, but not once for each of them."""
        now = asyncio.get_running_loop().time()
        if now >= self._warned_at + _LAST_RETRY or not self._warned_at:
            self._warned_at = now
            _log.warning("handler_unavailable", consumer=self._consumer.name, error=str(error))

    async def send_heartbeats(self) -> None:
        """Send heartbeats, which tell the server that the messages are still in this process."""
        while True:
            await asyncio.sleep(_HEARTBEAT_CHECK)
            supervision.beat()
            if not self._bus.is_connected:
                continue
            now = asyncio.get_running_loop().time()
            due = (held for held in [*self.held.values()] if held.alive_at < now - _HEARTBEAT)
            for held in islice(due, _HEARTBEAT_BURST):
                held.alive_at = now
                if not held.settled:
                    with suppress(*CONNECTION_ERRORS):
                        await self._reply(held, _IN_PROGRESS)

    async def finish(self, close_at: float) -> None:
        """Wait for all messages until a certain time, and then only for those that have begun.

        Args:
            close_at: the time, by the clock of the event loop, at which no more messages are started.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout_at(close_at):
                await self._idle.wait()
        self._is_closed = True
        await self._cancel([held.task for held in self.held.values() if held.task and not held.begun])
        await self._idle.wait()

    async def abandon(self) -> None:
        """Cancel the processing of all messages."""
        await self._cancel([held.task for held in self.held.values() if held.task])

    async def _cancel(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)

    async def return_unsettled(self) -> None:
        """Return the messages that are not finished, in their order, unless they are moved instead."""
        unfinished = [*self._unsettled, *(held for held in self.held.values() if not held.settled)]
        unfinished.sort(key=lambda held: held.message.origin.sequence)
        are_moved = await asyncio.gather(*map(self._move_away, unfinished))
        returned = [held for held, is_moved in zip(unfinished, are_moved, strict=True) if not is_moved]
        with suppress(*CONNECTION_ERRORS):
            for held in returned[:-1]:
                await self._reply(held, NAK)
            for held in returned[-1:]:
                # The server confirms the last one. The consumer may serve another process only after that.
                await self._bus.client.request(held.reply, NAK, timeout=CONFIRMATION_TIMEOUT)

    async def _move_away(self, held: Held) -> bool:
        try:
            async with asyncio.timeout(CONFIRMATION_TIMEOUT):
                is_moved = await self._move(held.message)
        except (UnavailableError, TimeoutError):
            return False
        if is_moved:
            await self._settle(held, _ACK)
        return is_moved

    async def pause(self, seconds: float) -> None:
        """Wait until the time is over or the processing stops."""
        if seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.stopping.wait()


def _nak(delay: float) -> bytes:
    return NAK + b' {"delay": %d}' % int(delay * 1e9)
