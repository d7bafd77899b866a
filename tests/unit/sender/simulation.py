"""Senders between a JetStream and a provider in memory, in virtual time.

Whatever a sender asks of either is under way until the test decides what becomes of it: it arrives, it is
answered, its answer is lost, or the process that asked dies.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from random import Random
from typing import Any, ClassVar

from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from services.sender.event_publisher import EventPublisher
from services.sender.circuit_breaker import CircuitBreaker
from services.sender.delivery import Deliverer, Policy
from shared.providers.base import (
    CredentialsError,
    File,
    NotReachedError,
    RejectedError,
    TemporaryError,
    UnknownOutcomeError,
)
from services.sender.provider_client import Limits, Route
from services.sender.provider_selection import Routes
from services.sender.settings import OnAmbiguous
from shared.bus.client import REQUEST_TIMEOUT, Bus
from shared.bus.consumer import Done, HandBack, Outcome
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import Stream, suppression_subject, outbound_subject
from shared.channels import Channel
from shared.suppressions import SuppressionList
from shared.errors import BusUnavailableError, NotNowError, ServiceError
from shared.events import (
    SuppressionChange,
    SuppressionChanged,
    SuppressionSource,
    SuppressionState,
    DeadLettered,
    DeliveryDue,
    DeliveryRequest,
    Event,
    Message,
    MessageAccepted,
    Origin,
    StatusChanged,
    decode,
)
from shared.ids import MessageId, idempotent_message_id
from shared.ledger import Ledger, Record
from shared.settings import Settings
from shared.lifecycle import Status
from tests import messages
from tests.jetstream import JetStream, Stored
from tests.virtual_time import VirtualTimeLoop

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
VALIDITY = timedelta(hours=4)
DELAYS = tuple(timedelta(seconds=seconds) for seconds in (1, 60, 900))
_PROCESSES = 3
_MOST_TURNS = 5_000

_request: ContextVar[DeliveryRequest] = ContextVar("_request")


class Behaviour(StrEnum):
    """What the provider does with what it is asked."""

    ACCEPTS = "accepts"
    FAILS = "fails"
    REJECTS = "rejects"
    REFUSES_CREDENTIALS = "refuses credentials"
    IS_AWAY = "is away"


@dataclass
class Provider:
    """The provider itself.

    Attributes:
        asked: the message and the generation of every request that arrived.
        accepted: the same of what will reach somebody's phone.
    """

    honours_keys: bool
    behaviour: Behaviour = Behaviour.ACCEPTS
    asked: list[tuple[MessageId, int]] = field(default_factory=list)
    accepted: list[tuple[MessageId, int]] = field(default_factory=list)

    def take(self, request: DeliveryRequest) -> str:
        self.asked.append((request.message.id, request.generation))
        match self.behaviour:
            case Behaviour.FAILS:
                raise TemporaryError("http_500", "no")
            case Behaviour.REJECTS:
                raise RejectedError("http_400", "no")
            case Behaviour.REFUSES_CREDENTIALS:
                raise CredentialsError("http_401", "no")
            case Behaviour.IS_AWAY:
                raise NotReachedError("not_reached", "no")
        known = any(id_ == request.message.id for id_, _ in self.accepted)
        if not (known and self.honours_keys):
            self.accepted.append((request.message.id, request.generation))
        return f"theirs-{request.message.id}"


class Asked:
    """Something that a process asked for.

    Args:
        act: what the other side does when it arrives there.
        lost: what the process is told when no answer comes.
        about: the message, of what the provider is asked.
    """

    def __init__(
        self, by: "Process", act: Callable[[], Any], lost: Exception, about: MessageId | None = None
    ) -> None:
        self.by = by
        self.about = about
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


class _Client(JetStreamContext):
    def __init__(self, process: "Process") -> None:
        self._process = process

    async def get_last_msg(
        self,
        stream_name: str,
        subject: str,
        direct: bool | None = False,  # noqa: FBT001, FBT002, ARG002 - as its base has it
    ) -> RawStreamMsg:
        found = await self._process.ask_server(lambda server: server.last(stream_name, subject))
        if found is None:
            raise NotFoundError
        return RawStreamMsg(data=found.payload, seq=found.sequence)


class _Bus(Bus):
    def __init__(self, process: "Process") -> None:
        self._process = process
        self._client_in_memory = _Client(process)

    @property
    def jetstream(self) -> JetStreamContext:
        return self._client_in_memory

    @property
    def connected_for(self) -> timedelta:
        return self._process.world.connected_for()


class _Publisher(Publisher):
    def __init__(self, process: "Process") -> None:
        self._process = process

    async def publish(self, stream: str, outgoing: Outgoing) -> int:
        sequence: int = await self._process.ask_server(lambda server: server.store(stream, outgoing))
        return sequence


class _Adapter:
    name: ClassVar[str] = "in-memory"
    channel: ClassVar[Channel] = Channel.SMS
    settings: ClassVar[type[Settings]] = Settings
    honours_idempotency_keys: ClassVar[bool] = True
    takes_files: ClassVar[bool] = False

    def __init__(self, client: "Process", settings: object = None) -> None:  # noqa: ARG002 - as providers have it
        self._process = client

    async def send(self, message: Message, files: Sequence[File]) -> str:  # noqa: ARG002 - the request says more
        return await self._process.ask_provider(_request.get())


class _ForgetfulAdapter(_Adapter):
    honours_idempotency_keys = False


async def _fetch_nothing(urls: Sequence[str]) -> Sequence[File]:  # noqa: ARG001 - as Route calls it
    return ()


class Process:
    """A sender process, with a breaker of its own."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.handling: dict[asyncio.Task[None], Stored] = {}
        breaker = CircuitBreaker(failures=3, pause=timedelta(seconds=30), clock=world.now)
        honours = world.provider.honours_keys
        adapter = (_Adapter if honours else _ForgetfulAdapter)(self)
        route = Route(adapter, breaker, Limits(concurrency=8), _fetch_nothing)
        publisher = _Publisher(self)
        self.deliverer = Deliverer(
            Ledger(_Bus(self), publisher),
            SuppressionList(_Bus(self), publisher),
            EventPublisher(publisher),
            Routes({Channel.SMS: [route]}),
            Policy(
                DELAYS, OnAmbiguous.RESEND if honours else OnAmbiguous.FAIL, clock=world.now, random=Random(0)
            ),
        )

    def handle(self, stored: Stored) -> None:
        task = self.world.loop.create_task(self._handle(stored))
        self.handling[task] = stored
        task.add_done_callback(self.handling.pop)

    async def _handle(self, stored: Stored) -> None:
        event = decode(stored.payload)
        assert isinstance(event, MessageAccepted | DeliveryDue)
        origin = Origin(stream=stored.stream, sequence=stored.sequence, subject=stored.subject, consumer="c")
        _request.set(event.data)
        try:
            outcome = await self.deliverer.deliver(event.data, origin)
        except NotNowError:
            outcome = HandBack()
        self.world.settle(stored, outcome)

    async def ask_server(self, act: Callable[[JetStream], Any]) -> Any:  # noqa: ANN401 - what `act` returns
        lost = BusUnavailableError("no answer")
        asked = Asked(self, lambda: act(self.world.server), lost)
        self.world.asked.append(asked)
        try:
            return await asyncio.wait_for(asked.answer, REQUEST_TIMEOUT)
        except TimeoutError as exc:
            raise lost from exc

    async def ask_provider(self, request: DeliveryRequest) -> str:
        lost = UnknownOutcomeError("connection", "lost")
        asked = Asked(self, lambda: self.world.provider.take(request), lost, request.message.id)
        self.world.asked_twice |= asked.about in {each.about for each in self.world.under_way()}
        self.world.asked.append(asked)
        self.world.asked_of_provider.append(asked)
        answer: str = await asked.answer
        return answer

    def die(self) -> None:
        for task in self.handling:
            task.cancel()


class World:
    """Everything there is, and what can happen to it.

    Attributes:
        asked_twice: whether the provider was asked for a message while somebody waited for its answer.
    """

    def __init__(self, *, honours_keys: bool) -> None:
        self.loop = VirtualTimeLoop()
        self.connected_since = START - timedelta(days=1)
        self.server = JetStream(self.now)
        self.provider = Provider(honours_keys)
        self.processes = [Process(self) for _ in range(_PROCESSES)]
        self.asked: list[Asked] = []
        self.asked_twice = False
        self.asked_of_provider: list[Asked] = []
        self._settled: set[Stored] = set()
        self._not_before: dict[Stored, datetime] = {}

    def connected_for(self) -> timedelta:
        return self.now() - self.connected_since

    def now(self) -> datetime:
        return START + timedelta(seconds=self.loop.time())

    # --- What there is ---

    def under_way(self, by: Process | None = None) -> list[Asked]:
        self.asked = [asked for asked in self.asked if not asked.answer.done()]
        return [asked for asked in self.asked if by in {None, asked.by}]

    def on_the_wire(self) -> list[Asked]:
        """List what the provider may still get, whether or not somebody still waits for its answer."""
        return [asked for asked in self.asked_of_provider if not asked.has_arrived]

    def undone(self) -> list[Stored]:
        """List the messages that no sender has acknowledged."""
        stored = [*self.server.messages(Stream.OUTBOUND), *self.server.messages(Stream.DELAYED)]
        return [each for each in stored if each.due is None and each not in self._settled]

    def deliverable(self) -> list[Stored]:
        now = self.now()
        return [each for each in self.undone() if self._not_before.get(each, now) <= now]

    def told(self) -> list[Event]:
        """List the events and dead letters in their streams."""
        streams = (Stream.EVENTS, Stream.DEADLETTER)
        return [decode(each.payload) for stream in streams for each in self.server.messages(stream)]

    def statuses(self) -> list[StatusChanged]:
        return [event for event in self.told() if isinstance(event, StatusChanged)]

    def dead_letters(self) -> list[DeadLettered]:
        return [event for event in self.told() if isinstance(event, DeadLettered)]

    def requests(self) -> list[DeliveryRequest]:
        """List what was accepted, replays included."""
        events = [decode(each.payload) for each in self.server.messages(Stream.OUTBOUND)]
        return [event.data for event in events if isinstance(event, MessageAccepted)]

    def recorded(self, message_id: MessageId) -> Record | None:
        """Read the ledger."""
        ledger = Ledger(_Bus(self.processes[0]), _Publisher(self.processes[0]))
        looking = self.loop.create_task(ledger.look_up(message_id))
        self.let_pass()
        for asked in self.under_way():
            asked.succeed()
        return self.loop.run_until_complete(looking)

    def replayable(self) -> list[DeliveryRequest]:
        """List the requests of dead letters, and of what was sent: that may kill its sender too."""
        given_up = [event.data.request for event in self.dead_letters() if event.data.request]
        sent = {
            (event.data.message_id, event.data.generation)
            for event in self.statuses()
            if event.data.status is Status.SENT
        }
        return [*given_up, *(each for each in self.requests() if (each.message.id, each.generation) in sent)]

    def schedules(self) -> list[Stored]:
        return [each for each in self.server.messages(Stream.DELAYED) if each.due]

    # --- What can happen ---

    def let_pass(self, seconds: float = 0) -> None:
        self.loop.let_pass(seconds)
        self.server.publish_what_is_due()

    def accept(self, number: int) -> None:
        message = messages.message(
            id=idempotent_message_id("simulation", str(number)), timestamp=START, created_at=START
        )
        self._publish_accepted(DeliveryRequest(message=message, expires_at=self.now() + VALIDITY))

    def is_quiet(self) -> bool:
        """Tell whether no sender has a message in its hands, and the provider gets none that is late."""
        return not (self.on_the_wire() or any(process.handling for process in self.processes))

    def change_consent(self, state: SuppressionState) -> None:
        """Do what the gateway has done when it answers the webhook of a keyword."""
        change = SuppressionChange(
            channel=Channel.SMS,
            ours=messages.ALICE,
            theirs=messages.BOB,
            state=state,
            source=SuppressionSource.KEYWORD,
            occurred_at=self.now(),
        )
        event = SuppressionChanged.of(change, cause=len(self.server.messages(Stream.SUPPRESSIONS)))
        subject = suppression_subject(change.channel, change.key)
        self.server.store(Stream.SUPPRESSIONS, Outgoing(subject, event.id, event.encode()))

    def replay(self, request: DeliveryRequest) -> None:
        """Do what the gateway does with the request of a dead letter."""
        fresh = {"attempt": 1, "deferral_count": 0, "errors": [], "expires_at": self.now() + VALIDITY}
        self._publish_accepted(request.model_copy(update={"generation": request.generation + 1, **fresh}))

    def _publish_accepted(self, request: DeliveryRequest) -> None:
        event = MessageAccepted.of(request, time=self.now())
        subject = outbound_subject(request.message.channel, request.message.conversation_key)
        self.server.store(Stream.OUTBOUND, Outgoing(subject, event.id, event.encode()))

    def settle(self, stored: Stored, outcome: Outcome) -> None:
        match outcome:
            case Done():
                self._settled.add(stored)
            case HandBack(delay):
                self._not_before[stored] = self.now() + delay

    def answer(self, turns: int, by: Process | None = None, *, but: Asked | None = None) -> None:
        """Answer what is under way, and what is asked for then, and so on."""
        for _ in range(turns):
            for asked in self.under_way(by):
                if asked is not but:
                    asked.succeed()
            self.let_pass()

    def reset_consumers(self) -> None:
        self._settled.clear()
        self._not_before.clear()

    def come_to_rest(self) -> None:
        """Let everything be answered and time pass until nothing is left to do."""
        for turn in range(_MOST_TURNS):
            self.let_pass()
            handled = {stored for process in self.processes for stored in process.handling.values()}
            if under_way := self.under_way():
                for asked in under_way:
                    asked.succeed()
            elif waiting := [each for each in self.deliverable() if each not in handled]:
                for stored in waiting:
                    self.processes[turn % _PROCESSES].handle(stored)
            elif handled or self.undone() or self.schedules():
                self.let_pass(1 if handled else self._until_something_happens())
            else:
                return
        raise AssertionError("it does not come to rest")

    def _until_something_happens(self) -> float:
        dues = [each.due for each in self.schedules() if each.due]
        moments = [*dues, *(self._not_before[each] for each in self.undone())]
        return max((min(moments) - self.now()).total_seconds(), 0)

    def close(self) -> None:
        for process in self.processes:
            process.die()
        self.let_pass()
        self.loop.close()
