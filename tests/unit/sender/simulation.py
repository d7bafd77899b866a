"""Senders between a JetStream and a provider in memory, in virtual time.

Every request of a sender to either of them stays in progress until the test decides what happens to it: it
arrives, it is answered, its answer is lost, or the process that made it dies.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from random import Random
from typing import Any

from services.sender.circuit_breaker import CircuitBreaker
from services.sender.delivery import Deliverer, NoProviderError
from services.sender.event_publisher import EventPublisher
from services.sender.limits import Limiter
from services.sender.provider_client import ProviderClient
from services.sender.provider_selection import ProviderSelection
from shared.bus.client import REQUEST_TIMEOUT, Bus
from shared.bus.consumer import Done, HandBack, Outcome
from shared.bus.direct_get import Answer
from shared.bus.key_value import Versioned
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.suppression_list import SuppressionList
from shared.bus.topology import Stream, outbound_subject, suppression_subject
from shared.channels import Channel
from shared.dead_letters import DeadLetter, Origin
from shared.errors import BusUnavailableError, ServiceError, UnavailableError
from shared.events import Event, decode, message_accepted, suppression_changed
from shared.ids import MessageId, inbound_message_id
from shared.ledger import Ledger
from shared.lifecycle.entry import LedgerEntry
from shared.lifecycle.interventions import replay
from shared.lifecycle.policy import DeliveryPolicy, OnAmbiguous
from shared.message import DeliveryRequest, Message, StatusReport
from shared.providers.base import (
    Adapter,
    File,
    HttpAnswer,
    HttpRequest,
    NotReachedError,
    Provider,
    TemporaryError,
    UnknownOutcomeError,
)
from shared.providers.http import HttpClient
from shared.settings import Settings
from shared.status import Status
from shared.suppressions import SuppressionChange, SuppressionSource, SuppressionState
from tests import messages
from tests.jetstream import JetStream, Stored
from tests.pauses import LocalPauses
from tests.virtual_time import VirtualTimeLoop

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
VALIDITY = timedelta(hours=4)
DELAYS = tuple(timedelta(seconds=seconds) for seconds in (1, 60, 900))
_PROCESSES = 3
_MAX_TURNS = 5_000

_request: ContextVar[DeliveryRequest] = ContextVar("_request")


class Behaviour(StrEnum):
    """The way in which the provider handles a request."""

    ACCEPTS = "accepts"
    FAILS = "fails"
    THROTTLES = "throttles"
    REJECTS = "rejects"
    REJECTS_CREDENTIALS = "rejects credentials"
    IS_UNREACHABLE = "is unreachable"


_STATUSES = {
    Behaviour.ACCEPTS: 200,
    Behaviour.FAILS: 425,
    Behaviour.REJECTS: 400,
    Behaviour.REJECTS_CREDENTIALS: 401,
}


@dataclass
class InMemoryProvider:
    """The provider itself.

    Attributes:
        requested: the message and the generation of every request that arrived.
        accepted: the same for each message that the recipient will get.
    """

    honours_keys: bool
    behaviour: Behaviour = Behaviour.ACCEPTS
    requested: list[tuple[MessageId, int]] = field(default_factory=list)
    accepted: list[tuple[MessageId, int]] = field(default_factory=list)

    def receive(self, request: DeliveryRequest) -> HttpAnswer:
        self.requested.append((request.message.id, request.generation))
        if self.behaviour is Behaviour.IS_UNREACHABLE:
            raise NotReachedError("not_reached", "no connection")
        if self.behaviour is Behaviour.THROTTLES:
            raise TemporaryError("http_429", "too many requests", throttled=True)
        if self.behaviour is Behaviour.ACCEPTS:
            known = any(id_ == request.message.id for id_, _ in self.accepted)
            if not (known and self.honours_keys):
                self.accepted.append((request.message.id, request.generation))
        return HttpAnswer(_STATUSES[self.behaviour], {}, f'{{"id": "theirs-{request.message.id}"}}'.encode())


class PendingRequest:
    """A request of a process to the server or to the provider.

    Args:
        by: the process.
        act: what the other side does when the request arrives.
        lost: the error of the process if no answer arrives.
        message_id: the message, if it is a request to the provider.
    """

    def __init__(
        self, by: "Process", act: Callable[[], Any], lost: Exception, message_id: MessageId | None = None
    ) -> None:
        self.by = by
        self.message_id = message_id
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.has_arrived = False
        self._act = act
        self._lost = lost

    def arrive(self) -> None:
        if self.has_arrived:
            return
        self.has_arrived = True
        try:
            self._settle = partial(self.answer.set_result, self._act())
        except ServiceError as exc:
            self._settle = partial(self.answer.set_exception, exc)

    def succeed(self) -> None:
        self.arrive()
        self._settle()

    def lose(self) -> None:
        self.answer.set_exception(self._lost)


class _Bus(Bus):
    def __init__(self, process: "Process") -> None:
        self._process = process

    async def last_messages(self, stream: str, subjects: Sequence[str]) -> Answer:
        answer: Answer = await self._process.ask_server(lambda server: server.last_messages(stream, subjects))
        return answer

    async def next_messages(self, stream: str, first: int, *, count: int, subject: str) -> Answer:
        answer: Answer = await self._process.ask_server(
            lambda server: server.next_messages(stream, first, count=count, subject=subject)
        )
        return answer

    @property
    def connected_for(self) -> timedelta:
        return self._process.world.connected_for()


class _Publisher(Publisher):
    def __init__(self, process: "Process") -> None:
        self._process = process

    async def publish(self, stream: str, outgoing: Outgoing) -> int:
        sequence: int = await self._process.ask_server(lambda server: server.store(stream, outgoing))
        return sequence


class _Adapter(Adapter[Settings]):
    honours_idempotency_keys = True

    def __init__(self, settings: Settings) -> None:
        pass

    def request(self, message: Message, files: Sequence[File]) -> HttpRequest:  # noqa: ARG002 - there are none
        return HttpRequest.json("http://provider", {"id": str(message.id)}, {})

    def message_id(self, answer: HttpAnswer) -> object:
        return answer.field("id")


class _AdapterWithoutKeys(_Adapter):
    honours_idempotency_keys = False


class _HttpClient(HttpClient):
    def __init__(self, process: "Process") -> None:
        self._process = process

    async def post(self, request: HttpRequest) -> HttpAnswer:  # noqa: ARG002 - see _request
        return await self._process.ask_provider(_request.get())


async def _fetch_nothing(urls: Sequence[str], max_bytes: int = 0) -> Sequence[File]:  # noqa: ARG001 - no attachments
    return ()


class Process:
    """A sender process, with a circuit breaker of its own."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.handling: dict[asyncio.Task[None], Stored] = {}
        honours_keys = world.provider.honours_keys
        adapter = _Adapter if honours_keys else _AdapterWithoutKeys
        self.client = ProviderClient(
            Provider(name="in-memory", channel=Channel.SMS, settings=Settings, adapter=adapter),
            adapter(Settings()),
            _HttpClient(self),
            breaker=CircuitBreaker(failures=3, pause=timedelta(seconds=30), clock=world.loop.time),
            limiter=Limiter(8, clock=world.loop.time),
            pauses=LocalPauses(),
            fetch=_fetch_nothing,
        )
        publisher = _Publisher(self)
        self.deliverer = Deliverer(
            Ledger(_Bus(self), publisher),
            SuppressionList(_Bus(self), publisher),
            EventPublisher(publisher),
            ProviderSelection({Channel.SMS: [self.client]}),
            DeliveryPolicy(
                delays=DELAYS,
                on_ambiguous=OnAmbiguous.RESEND if honours_keys else OnAmbiguous.FAIL,
                random=Random(0),
            ),
            world.now,
        )

    def handle(self, stored: Stored) -> None:
        task = self.world.loop.create_task(self._handle(stored))
        self.handling[task] = stored
        task.add_done_callback(self.handling.pop)

    async def _handle(self, stored: Stored) -> None:
        request = decode(stored.payload).data
        assert isinstance(request, DeliveryRequest)
        origin = Origin(stream=stored.stream, sequence=stored.sequence, subject=stored.subject, consumer="c")
        _request.set(request)
        try:
            outcome = await self.deliverer.deliver(
                request, origin, keeps_place=stored.stream == Stream.OUTBOUND
            )
        except NoProviderError:
            # The message waits in the process until the provider may be asked again.
            outcome = HandBack(max(self.client.retry_in, timedelta(seconds=1)))
        except UnavailableError:
            outcome = HandBack()
        self.world.settle(stored, outcome)

    async def ask_server(self, act: Callable[[JetStream], Any]) -> Any:  # noqa: ANN401 - what `act` returns
        lost = BusUnavailableError("no answer")
        pending = PendingRequest(self, lambda: act(self.world.server), lost)
        self.world.pending.append(pending)
        try:
            return await asyncio.wait_for(pending.answer, REQUEST_TIMEOUT)
        except TimeoutError as exc:
            raise lost from exc

    async def ask_provider(self, request: DeliveryRequest) -> HttpAnswer:
        lost = UnknownOutcomeError("no_answer", "lost")
        pending = PendingRequest(self, lambda: self.world.provider.receive(request), lost, request.message.id)
        waiting = {each.message_id for each in self.world.in_progress()}
        self.world.was_asked_concurrently |= pending.message_id in waiting
        self.world.pending.append(pending)
        self.world.requests_to_provider.append(pending)
        answer: HttpAnswer = await pending.answer
        return answer

    def die(self) -> None:
        for task in self.handling:
            task.cancel()


class World:
    """The simulated world, and the events that can happen in it.

    Attributes:
        was_asked_concurrently: whether the provider was asked to send a message while another process was
            waiting for the answer to such a request.
    """

    def __init__(self, *, honours_keys: bool) -> None:
        self.loop = VirtualTimeLoop()
        self.connected_since = START - timedelta(days=1)
        self.server = JetStream(self.now)
        self.provider = InMemoryProvider(honours_keys)
        self.processes = [Process(self) for _ in range(_PROCESSES)]
        self.pending: list[PendingRequest] = []
        self.was_asked_concurrently = False
        self.requests_to_provider: list[PendingRequest] = []
        self._settled: set[Stored] = set()
        self._not_before: dict[Stored, datetime] = {}

    def connected_for(self) -> timedelta:
        return self.now() - self.connected_since

    def now(self) -> datetime:
        return START + timedelta(seconds=self.loop.time())

    # --- State ---

    def in_progress(self, by: Process | None = None) -> list[PendingRequest]:
        self.pending = [each for each in self.pending if not each.answer.done()]
        return [each for each in self.pending if by in {None, each.by}]

    def on_the_wire(self) -> list[PendingRequest]:
        """Return the requests that may still reach the provider, even if no process waits for the answer."""
        return [each for each in self.requests_to_provider if not each.has_arrived]

    def unsettled(self) -> list[Stored]:
        """Return the messages that no sender has acknowledged."""
        stored = [*self.server.messages(Stream.OUTBOUND), *self.server.messages(Stream.DELAYED)]
        return [each for each in stored if each.due is None and each not in self._settled]

    def deliverable(self) -> list[Stored]:
        now = self.now()
        return [each for each in self.unsettled() if self._not_before.get(each, now) <= now]

    def published(self) -> list[Event[Any]]:
        """Return the events and dead letters in their streams."""
        streams = (Stream.EVENTS, Stream.DEADLETTER)
        return [decode(each.payload) for stream in streams for each in self.server.messages(stream)]

    def reports(self) -> list[Event[StatusReport]]:
        return [event for event in self.published() if isinstance(event.data, StatusReport)]

    def statuses(self) -> list[Status]:
        return [event.data.status for event in self.reports()]

    def dead_letters(self) -> list[DeadLetter]:
        return [event.data for event in self.published() if isinstance(event.data, DeadLetter)]

    def requests(self) -> list[DeliveryRequest]:
        """Return the accepted requests, including replays."""
        events = [decode(each.payload) for each in self.server.messages(Stream.OUTBOUND)]
        return [event.data for event in events if isinstance(event.data, DeliveryRequest)]

    def look_up(self, message_id: MessageId) -> Versioned[LedgerEntry] | None:
        """Read the ledger."""
        ledger = Ledger(_Bus(self.processes[0]), _Publisher(self.processes[0]))
        looking_up = self.loop.create_task(ledger.look_up(message_id))
        self.let_pass()
        for pending in self.in_progress():
            pending.succeed()
        return self.loop.run_until_complete(looking_up)

    def replayable(self) -> list[DeliveryRequest]:
        """Return the requests of dead letters and of sent messages, which may crash a sender as well."""
        dead = [dead_letter.request for dead_letter in self.dead_letters() if dead_letter.request]
        sent = {
            (event.data.message_id, event.data.generation)
            for event in self.reports()
            if event.data.status is Status.SENT
        }
        return [*dead, *(each for each in self.requests() if (each.message.id, each.generation) in sent)]

    def schedules(self) -> list[Stored]:
        return [each for each in self.server.messages(Stream.DELAYED) if each.due]

    def is_quiet(self) -> bool:
        """Return whether no sender handles a message, and no late request can reach the provider."""
        return not (self.on_the_wire() or any(process.handling for process in self.processes))

    # --- Events ---

    def let_pass(self, seconds: float = 0) -> None:
        self.loop.let_pass(seconds)
        self.server.publish_what_is_due()

    def accept(self, number: int) -> None:
        message = messages.message(
            id=inbound_message_id("simulation", str(number)), timestamp=START, created_at=START
        )
        self._publish_accepted(DeliveryRequest(message=message, expires_at=self.now() + VALIDITY))

    def change_suppression(self, state: SuppressionState) -> None:
        """Record the change, as the gateway does before it answers the webhook of a keyword."""
        change = SuppressionChange(
            channel=Channel.SMS,
            ours=messages.ALICE,
            theirs=messages.BOB,
            state=state,
            source=SuppressionSource.KEYWORD,
            cause=str(len(self.server.messages(Stream.SUPPRESSIONS))),
            occurred_at=self.now(),
        )
        event = suppression_changed(change)
        subject = suppression_subject(change.channel, change.key)
        self.server.store(Stream.SUPPRESSIONS, Outgoing(subject, event.id, event.encode()))

    def replay(self, request: DeliveryRequest) -> None:
        """Do what the gateway does with the request of a dead letter."""
        self._publish_accepted(replay(request, VALIDITY, self.now()))

    def _publish_accepted(self, request: DeliveryRequest) -> None:
        event = message_accepted(request, time=self.now())
        subject = outbound_subject(request.message.channel, request.message.conversation_key)
        self.server.store(Stream.OUTBOUND, Outgoing(subject, event.id, event.encode()))

    def settle(self, stored: Stored, outcome: Outcome) -> None:
        match outcome:
            case Done():
                self._settled.add(stored)
            case HandBack(delay):
                self._not_before[stored] = self.now() + delay

    def answer(
        self, turns: int, by: Process | None = None, *, except_for: PendingRequest | None = None
    ) -> None:
        """Answer the requests in progress, then those that follow from the answers, and so on."""
        for _ in range(turns):
            for pending in self.in_progress(by):
                if pending is not except_for:
                    pending.succeed()
            self.let_pass()

    def reset_consumers(self) -> None:
        self._settled.clear()
        self._not_before.clear()

    def come_to_rest(self) -> None:
        """Answer everything and let time pass until nothing is left to do."""
        for turn in range(_MAX_TURNS):
            self.let_pass()
            handled = {stored for process in self.processes for stored in process.handling.values()}
            if in_progress := self.in_progress():
                for pending in in_progress:
                    pending.succeed()
            elif waiting := [each for each in self.deliverable() if each not in handled]:
                for stored in waiting:
                    self.processes[turn % _PROCESSES].handle(stored)
            elif handled or self.unsettled() or self.schedules():
                self.let_pass(1 if handled else self._seconds_until_next_event())
            else:
                return
        raise AssertionError("the simulation does not come to rest")

    def _seconds_until_next_event(self) -> float:
        due = [each.due for each in self.schedules() if each.due]
        moments = [*due, *(self._not_before[each] for each in self.unsettled())]
        return max((min(moments) - self.now()).total_seconds(), 0)

    def close(self) -> None:
        for process in self.processes:
            process.die()
        self.let_pass()
        self.loop.close()
