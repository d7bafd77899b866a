"""The limits of a process, in virtual time: it admits each message at the right time."""

import asyncio
from collections.abc import Iterator

import pytest

from services.sender.gate import LONGEST_WAIT, Gate, LimitedError
from services.sender.limits import Limiter
from services.sender.schedule import Limit, Schedules
from shared.message import DeliveryRequest, Priority
from tests import messages
from tests.jetstream import BusTo, JetStream, PublisherTo
from tests.virtual_time import VirtualTimeLoop

OTHER = "+12025550100"
MIDNIGHT = 20_000 * 86_400.0


class World:
    """A sender process, and the times at which it has admitted messages."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self.loop = loop
        self.admitted: list[tuple[str, float]] = []
        self.limited: list[float] = []
        self.start = MIDNIGHT
        server = JetStream(messages.now)
        self._schedules = Schedules(BusTo(server), PublisherTo(server), clock=self.clock)

    def clock(self) -> float:
        return self.start + self.loop.time()

    def gate(self, rate: float | None = None, per_day: int | None = None, name: str = "x") -> Gate:
        return Gate(Limit(name, rate, per_day), self._schedules, clock=self.clock)

    def limiter(
        self, concurrency: int = 100, gate: Gate | None = None, of_sender: Gate | None = None
    ) -> Limiter:
        gates = {messages.ALICE: [of_sender]} if of_sender else {}
        return Limiter(concurrency, gate, gates, clock=self.loop.time)

    def send(
        self, limiter: Limiter, *requests: DeliveryRequest, seconds: float = 0
    ) -> list[asyncio.Task[None]]:
        return [self.loop.create_task(self._send(limiter, request, seconds)) for request in requests]

    async def _send(self, limiter: Limiter, request: DeliveryRequest, seconds: float) -> None:
        try:
            admission = await limiter.enter(request)
        except LimitedError as exc:
            self.limited.append(exc.seconds)
            return
        try:
            self.admitted.append((request.message.body, round(self.loop.time(), 3)))
            await asyncio.sleep(seconds)
        finally:
            limiter.leave(admission)

    @property
    def times(self) -> list[float]:
        return [time for _, time in self.admitted]


@pytest.fixture
def world() -> Iterator[World]:
    loop = VirtualTimeLoop()
    yield World(loop)
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.let_pass(0)
    loop.close()


def request(body: str = "x", from_: str = messages.ALICE, **fields: object) -> DeliveryRequest:
    caller = fields.pop("caller", None)
    return messages.request(messages.message(body=body, from_=from_, **fields), caller=caller)


@pytest.mark.parametrize("rate", [10, 100])
def test_no_second_exceeds_the_rate_or_falls_far_below_it(world: World, rate: int) -> None:
    limiter = world.limiter(gate=world.gate(rate))
    world.send(limiter, *[request() for _ in range(5 * rate)])
    world.loop.let_pass(4)
    for start in range(30):
        window = [time for time in world.times if start / 10 <= time < start / 10 + 1]
        assert 0.9 * rate <= len(window) <= 1.1 * rate


def test_a_process_that_has_stalled_does_not_catch_up(world: World) -> None:
    limiter = world.limiter(concurrency=1, gate=world.gate(100))
    world.send(limiter, request(), seconds=0.5)
    world.send(limiter, *[request() for _ in range(300)])
    world.loop.let_pass(1.5)
    assert len([time for time in world.times if 0.5 <= time < 1]) <= 55


def test_the_segments_of_an_sms_count(world: World) -> None:
    limiter = world.limiter(of_sender=world.gate(1))
    world.send(limiter, request("a"), request("b" * 161), request("c"), request("d"))
    world.loop.let_pass(10)
    assert world.times == pytest.approx([0, 1, 3, 4], abs=0.02)


def test_a_limited_address_holds_up_no_others_and_takes_no_place(world: World) -> None:
    limiter = world.limiter(concurrency=1, of_sender=world.gate(1))
    world.send(limiter, *[request("limited") for _ in range(5)])
    world.send(limiter, *[request("free", OTHER) for _ in range(10)])
    world.loop.let_pass(0.02)
    assert world.admitted.count(("free", 0)) == 10


def test_an_address_with_a_limit_gets_its_share_of_a_limited_provider(world: World) -> None:
    limiter = world.limiter(gate=world.gate(10), of_sender=world.gate(1, name="y"))
    world.send(limiter, *[request("limited") for _ in range(20)])
    world.send(limiter, *[request("free", OTHER) for _ in range(200)])
    world.loop.let_pass(10)
    bodies = [body for body, _ in world.admitted]
    assert 85 <= len(bodies) <= 110
    assert bodies.count("limited") >= 8


def test_an_address_with_a_limit_gets_its_share_although_other_processes_use_up_the_provider(
    world: World,
) -> None:
    for _ in range(4):
        world.send(world.limiter(gate=world.gate(10)), *[request("free", OTHER) for _ in range(100)])
    limiter = world.limiter(gate=world.gate(10), of_sender=world.gate(1, name="y"))
    world.send(limiter, *[request("limited") for _ in range(20)])
    world.loop.let_pass(10)
    assert [body for body, _ in world.admitted].count("limited") >= 7


@pytest.mark.parametrize("rate", [20, 100])
def test_an_address_with_a_limit_wastes_little_of_the_limit_of_its_provider(world: World, rate: int) -> None:
    for _ in range(2):
        limiter = world.limiter(gate=world.gate(rate), of_sender=world.gate(1, name="y"))
        world.send(limiter, *[request("limited") for _ in range(30)])
        world.send(limiter, *[request("free", OTHER) for _ in range(20 * rate)])
    world.loop.let_pass(10)
    bodies = [body for body, _ in world.admitted]
    assert 0.93 * 10 * rate <= len(bodies) <= 1.01 * 10 * rate + 1
    assert bodies.count("limited") >= 5


def test_two_processes_share_a_limit_and_one_that_dies_wastes_little(world: World) -> None:
    first, second = (world.limiter(gate=world.gate(10)) for _ in range(2))
    tasks = world.send(first, *[request("first") for _ in range(50)])
    world.send(second, *[request("second") for _ in range(50)])
    world.loop.let_pass(2)
    assert 19 <= len(world.times) <= 21
    assert 5 <= [body for body, _ in world.admitted].count("first") <= 16
    for task in tasks:
        task.cancel()
    world.loop.let_pass(2)
    assert 37 <= len(world.times) <= 41


def test_messages_keep_their_place_until_the_next_day_only_if_it_begins_soon(world: World) -> None:
    world.start = MIDNIGHT - 30
    limiter = world.limiter(of_sender=world.gate(per_day=2))
    world.send(limiter, *[request() for _ in range(5)])
    world.loop.let_pass(1)
    assert world.times == [0, 0]
    world.loop.let_pass(31)
    assert world.times == pytest.approx([0, 0, 30, 30], abs=0.1)
    [seconds] = world.limited
    assert seconds == pytest.approx(86_400, abs=40)


def test_messages_beyond_an_hour_are_deferred_one_after_another(world: World) -> None:
    limiter = world.limiter(of_sender=world.gate(0.1))
    world.send(limiter, *[request() for _ in range(364)])
    world.loop.let_pass(0.5)
    assert world.limited == pytest.approx([LONGEST_WAIT + 10, LONGEST_WAIT + 20, LONGEST_WAIT + 30], abs=0.1)


def test_messages_that_were_held_up_after_their_admission_are_not_sent_together(world: World) -> None:
    """Their claims take until the second second, for instance because NATS is slow."""
    rate, sent = 20, list[float]()

    async def send(limiter: Limiter) -> None:
        admission = await limiter.enter(request())
        if 1 < world.loop.time() < 2:
            await asyncio.sleep(2 - world.loop.time())
        await admission.until_due()
        sent.append(world.loop.time())
        limiter.leave(admission)

    limiter = world.limiter(of_sender=world.gate(rate, per_day=100))
    for _ in range(100):
        world.loop.create_task(send(limiter))
    world.loop.let_pass(10)
    assert len(sent) == 100
    assert max(sum(start <= time < start + 1 for time in sent) for start in sent) <= 1.1 * rate


def test_bulk_messages_that_wait_do_not_defer_a_transactional_one(world: World) -> None:
    limiter = world.limiter(of_sender=world.gate(0.1))
    world.send(limiter, *[request("bulk", priority=Priority.BULK) for _ in range(364)])
    world.loop.let_pass(0.5)
    world.send(limiter, request("bulk", priority=Priority.BULK), request("transactional"))
    world.loop.let_pass(10)
    assert [body for body, _ in world.admitted] == ["bulk", "transactional"]


def test_no_caller_can_fill_all_places(world: World) -> None:
    limiter = world.limiter(concurrency=2)
    world.send(limiter, *[request("a", caller="a") for _ in range(20)], seconds=1)
    world.send(limiter, *[request("b", caller="b") for _ in range(2)], seconds=1)
    world.loop.let_pass(1.5)
    assert [body for body, _ in world.admitted].count("b") == 1


def test_a_paused_address_is_probed_by_one_message(world: World) -> None:
    limiter = world.limiter()
    limiter_paused = world.loop.create_task(pause(limiter, 10))
    world.loop.let_pass(0)
    assert limiter_paused.done()
    world.send(limiter, *[request("paused") for _ in range(5)], seconds=1)
    world.send(limiter, request("free", OTHER))
    world.loop.let_pass(9)
    assert world.admitted == [("free", 0)]
    assert limiter.paused_senders == 1
    world.loop.let_pass(1.5)
    assert world.times == pytest.approx([0, 10], abs=0.01)


def test_messages_are_deferred_during_a_long_pause(world: World) -> None:
    limiter = world.limiter()
    world.send(limiter, request("before"), seconds=1)
    world.loop.create_task(pause(limiter, 7_200))
    world.loop.let_pass(0)
    world.send(limiter, request("paused"))
    world.loop.let_pass(0.5)
    assert world.limited == [pytest.approx(7_200, abs=0.1)]


async def pause(limiter: Limiter, seconds: float) -> None:
    limiter.pause(messages.ALICE, seconds)


def test_a_message_that_is_cancelled_just_when_it_is_admitted_leaves_its_place_to_others(
    world: World,
) -> None:
    async def leave_and_cancel() -> None:
        admission = await limiter.enter(request("first"))
        [second] = world.send(limiter, request("second"))
        world.send(limiter, request("third"))
        await asyncio.sleep(1)
        limiter.leave(admission)
        second.cancel()

    limiter = world.limiter(concurrency=1)
    world.loop.create_task(leave_and_cancel())
    world.loop.let_pass(2)
    assert [body for body, _ in world.admitted] == ["third"]


def test_a_cancelled_message_leaves_its_place_to_others(world: World) -> None:
    limiter = world.limiter(concurrency=1)
    world.send(limiter, request("first"), seconds=1)
    world.loop.let_pass(0)
    [second] = world.send(limiter, request("second"))
    world.send(limiter, request("third"))
    world.loop.let_pass(0)
    second.cancel()
    world.loop.let_pass(2)
    assert [body for body, _ in world.admitted] == ["first", "third"]
