"""Decides which message is sent next through a provider, and when."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic

from services.sender.circuit_breaker import CircuitBreaker, Permission
from services.sender.fair_queue import FairQueue, Place
from services.sender.gate import LEAD, LONGEST_WAIT, Gate, LimitedError
from shared.channels import MessageType
from shared.message import DeliveryRequest, Message
from shared.segments import segments_of

_PROBE_PAUSE = timedelta(seconds=30)

_RESERVATION = 1.0
"""Seconds after which a reservation is retried if NATS has not responded. A response is noticed at once."""

GatesBySender = Mapping[str, Sequence[Gate]]
"""The limits of each number, e-mail address or `@domain` (all of its addresses), in lower case."""


@dataclass(frozen=True, slots=True)
class Admission:
    """A place at the provider.

    Attributes:
        permission: that of the message's sending address, if it was paused.
        slots: its limits, the number of slots of each, and the time for which they were taken.
    """

    permission: Permission | None
    slots: Sequence[tuple[Gate, int, float]]

    async def until_due(self) -> None:
        """Wait for new slots of each limit whose slots could not be used in time."""
        for gate, units, taken in self.slots:
            if gate.is_late(taken):
                await gate.replace(units)


@dataclass(eq=False, slots=True)
class _Waiting:
    """A message that waits to be admitted.

    Attributes:
        gates: its limits, and the number of slots that it takes of each.
        admitted: done when the message is admitted.
        longest_wait: the number of seconds that the message may stay in the process.
        seconds_left: the time until the message can be admitted.
    """

    place: Place
    gates: Sequence[tuple[Gate, int]]
    longest_wait: float
    admitted: asyncio.Future[Admission] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    seconds_left: float = 0


class Limiter:
    """Admits messages in a fair order, as soon as a place is free and their limits allow it.

    A message holds no place while it waits for a limit, or for the end of a pause of its sending address.

    Args:
        concurrency: the number of places.
        gate: the limit on requests to the provider, if there is one.
        by_sender: the limits of the sending addresses.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        concurrency: int,
        gate: Gate | None = None,
        by_sender: GatesBySender | None = None,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._clock = clock
        self.concurrency = self._free = concurrency
        self._gate = gate
        self._by_sender = by_sender or {}
        self._queue: FairQueue[_Waiting] = FairQueue()
        self._paused: dict[str, CircuitBreaker] = {}
        self._timer: asyncio.TimerHandle | None = None
        gates = {gate} if gate else set()
        for each in gates.union(*self._by_sender.values()):
            each.on_change.append(self._admit)

    @property
    def in_progress(self) -> int:
        """The number of places that are taken."""
        return self.concurrency - self._free

    @property
    def rate(self) -> float | None:
        """The limit of requests per second to the provider, or None."""
        return self._gate.limit.rate if self._gate else None

    @property
    def paused_senders(self) -> int:
        """The number of sending addresses that are paused."""
        return sum(not breaker.can_acquire for breaker in self._paused.values())

    def pause(self, sender: str, seconds: float) -> None:
        """Admit no message of a sending address for some time, and then a single one as a probe."""
        breaker = self._paused.get(sender)
        if breaker is None:
            breaker = CircuitBreaker(failures=1, pause=_PROBE_PAUSE, clock=self._clock)
            self._paused[sender] = breaker
        breaker.open(self._clock() + seconds)
        self._admit()

    async def enter(self, request: DeliveryRequest, *, longest_wait: float = LONGEST_WAIT) -> Admission:
        """Wait until a message may be sent, and take a place for it. The caller must leave it with `leave`.

        Raises:
            LimitedError: the wait would be longer than a message may stay in the process.
        """
        gates = self._gates_of(request.message)
        waiting = _Waiting(Place.of(request), gates, longest_wait)
        entered = self._enter_gates(waiting)
        try:
            self._queue.push(waiting.place, waiting)
            self._admit()
            return await waiting.admitted
        except asyncio.CancelledError:
            # It may have been admitted just before. Otherwise, `_admit` drops it.
            if waiting.admitted.done() and not (waiting.admitted.cancelled() or waiting.admitted.exception()):
                self.leave(waiting.admitted.result())
            raise
        finally:
            for gate, units in entered:
                gate.leave(units, waiting.place.priority)

    def _enter_gates(self, waiting: _Waiting) -> list[tuple[Gate, int]]:
        """Count a message among those that wait for its limits, and return these.

        A message that has limits of its own does not count for the limit of the provider: the slots that are
        reserved for those that wait are for messages that can use them at once.
        """
        priority = waiting.place.priority
        entered: list[tuple[Gate, int]] = []
        try:
            for gate, units in waiting.gates:
                if gate is not self._gate or len(waiting.gates) == 1:
                    gate.enter(units, priority, waiting.longest_wait)
                    entered.append((gate, units))
        except LimitedError:
            for gate, units in entered:
                gate.leave(units, priority)
            raise
        return entered

    def _gates_of(self, message: Message) -> list[tuple[Gate, int]]:
        """Return the limits of a message, and the number of slots that it takes of each."""
        sender = message.from_key.casefold()
        domain = "@" + sender.rpartition("@")[2]
        of_sender = [*self._by_sender.get(sender, ()), *self._by_sender.get(domain, ())]
        units = _units_of(message) if of_sender else 1
        gates = [(gate, gate.units(units)) for gate in of_sender]
        return [(self._gate, 1), *gates] if self._gate else gates

    def _admit(self) -> None:
        """Admit all messages that can be admitted, and schedule the next call for when another one can be."""
        times: list[float] = []

        def leaves(waiting: _Waiting) -> bool:
            waiting.seconds_left = 0 if waiting.admitted.cancelled() else self._seconds_left(waiting)
            if 0 < waiting.seconds_left <= waiting.longest_wait:
                times.append(waiting.seconds_left)
                return False
            return True

        while self._free and (waiting := self._queue.pop(leaves)):
            if waiting.admitted.cancelled():
                continue
            if waiting.seconds_left:
                waiting.admitted.set_exception(LimitedError(waiting.seconds_left))
            else:
                self._begin(waiting)
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(min(times), self._admit) if times else None

    def _seconds_left(self, waiting: _Waiting) -> float:
        breaker = self._paused.get(waiting.place.sender)
        pause = breaker.seconds_left if breaker else 0
        # No slot of one limit is reserved while another limit holds up the message.
        missing = (gate.seconds_left() for gate, units in waiting.gates if not gate.has(units))
        if blocked := max([pause, *missing]):
            return blocked
        reserved = [gate for gate, units in waiting.gates if gate.has(units)]
        left = max((gate.seconds_left() for gate in reserved), default=0)
        if len(reserved) == len(waiting.gates):
            return left
        if left > LEAD:
            return left - LEAD  # slots of the other limits would be dropped until then
        gate, units = next(each for each in waiting.gates if each[0] not in reserved)
        # For the time of the slots that it has; but others use the slots of the provider, too.
        after = max((each.first for each in reserved), default=0.0)
        gate.reserve(units, after=0 if gate is self._gate else after)
        return _RESERVATION

    def _begin(self, waiting: _Waiting) -> None:
        slots = [(gate, units, gate.take(units)) for gate, units in waiting.gates]
        breaker = self._paused.get(waiting.place.sender)
        self._free -= 1
        waiting.admitted.set_result(Admission(breaker.try_acquire() if breaker else None, slots))

    def leave(self, admission: Admission) -> None:
        """Release a place, and the permission that belongs to it."""
        if admission.permission:
            admission.permission.release()
            self._paused = {sender: each for sender, each in self._paused.items() if each.is_open}
        self._free += 1
        self._admit()


def _units_of(message: Message) -> int:
    """Return the units that a message takes of its sending address's limits.

    They are the segments of an SMS, and the recipients of any other message.
    """
    is_sms = message.type is MessageType.SMS
    return segments_of(message.body).count if is_sms else len(message.recipient_keys)
