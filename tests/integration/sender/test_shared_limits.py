"""Limits and pauses that apply across several processes, which share a real NATS."""

import asyncio
import json
from bisect import bisect_left
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from nats.aio.msg import Msg
from nats.js.api import ConsumerInfo
from prometheus_client import REGISTRY

from mock_providers.registry import SMS
from services.sender.gate import Gate
from services.sender.limits import Limiter
from services.sender.pauses import Pause, Pauses
from services.sender.schedule import Limit, Schedules
from shared.bus.client import Bus, connect
from shared.bus.publisher import Outgoing, Publisher, publishing
from shared.bus.topology import (
    CONSUMERS,
    LIMITS_BUCKET,
    MAX_DELIVER,
    PAUSES_SUBJECT,
    PIN_GROUP,
    Stream,
    delayed_due_subject,
    sender_delayed,
    sender_shards,
)
from shared.channels import Channel
from shared.events import delivery_due
from shared.ids import partition_of
from shared.message import DeliveryRequest
from tests import messages, providers
from tests.integration.sender.conftest import Harness, SenderFactory
from tests.waiting import eventually

NOW = 1_800_000_000.0


class RecordingGate(Gate):
    """Records the times of the slots that were used."""

    def __init__(self, limit: Limit, schedules: Schedules, used: list[float]) -> None:
        super().__init__(limit, schedules)
        self._used = used

    def take(self, units: int) -> float:
        self._used.append(self.first)
        return super().take(units)


def most_in_a_second(times: Sequence[float]) -> int:
    ordered = sorted(times)
    return max(bisect_left(ordered, start + 0.9999) - index for index, start in enumerate(ordered))


@asynccontextmanager
async def process(url: str) -> AsyncIterator[tuple[Bus, Publisher]]:
    """Connect as another sender process."""
    async with connect(url, name="test") as bus, publishing(bus) as publisher:
        await bus.until_connected()
        yield bus, publisher


async def send(limiter: Limiter) -> None:
    limiter.leave(await limiter.enter(messages.request()))


@pytest.mark.parametrize("rate", [10, 100])
async def test_slots_are_evenly_spaced_whoever_reserves_them(nats_url: str, rate: int) -> None:
    limit, granted = Limit("x", rate=rate), list[float]()

    async def reserve_some(bus: Bus, publisher: Publisher) -> None:
        schedules = Schedules(bus, publisher, clock=lambda: NOW)
        for number in range(20):
            granted.extend(await schedules.reserve(limit, wanted=1 + number % 3, needed=1))

    async with process(nats_url) as first, process(nats_url) as second, process(nats_url) as third:
        await asyncio.gather(*(reserve_some(*each) for each in (first, second, third)))

    expected = [NOW + number / rate for number in range(len(granted))]
    assert sorted(granted) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("rate", [10, 100])
async def test_no_second_has_more_than_the_limit_while_processes_come_and_go(
    nats_url: str, rate: int
) -> None:
    used: list[float] = []

    def start(bus: Bus, publisher: Publisher) -> list[asyncio.Task[None]]:
        limiter = Limiter(100, RecordingGate(Limit("x", rate), Schedules(bus, publisher), used))
        return [asyncio.create_task(send(limiter)) for _ in range(10 * rate)]

    async def are_used() -> bool:
        return len(used) > wanted

    async with process(nats_url) as first, process(nats_url) as second, process(nats_url) as third:
        tasks = start(*first)
        wanted = rate
        await eventually(are_used)
        abandoned = start(*second)
        wanted = 2 * rate
        await eventually(are_used)
        for task in abandoned:
            task.cancel()
        tasks += start(*third)
        wanted = 3 * rate
        await eventually(are_used)
        for task in tasks:
            task.cancel()
        await asyncio.wait([*tasks, *abandoned])

    assert most_in_a_second(used) <= 1.1 * rate


async def test_the_limit_of_an_address_is_independent_of_its_characters(
    bus: Bus, publisher: Publisher
) -> None:
    schedules = Schedules(bus, publisher, clock=lambda: NOW)
    for name in ("+12016661234", "@example.com", "ann.o'x@example.com", "Brand & Co.", "Größe", "a b>*"):
        limit = Limit(name, rate=1)
        assert await schedules.reserve(limit, wanted=1, needed=1) == [NOW]
        assert await schedules.reserve(limit, wanted=1, needed=1) == [NOW + 1]


async def test_messages_beyond_the_daily_limit_are_scheduled_for_the_next_day_without_using_up_an_attempt(
    harness: Harness, sender: SenderFactory
) -> None:
    schedules = Schedules(harness.bus, harness.publisher, clock=lambda: NOW)
    gate = Gate(Limit("alice", per_day=1), schedules, clock=lambda: NOW)
    async with sender(gates={messages.ALICE: [gate]}):
        first = await harness.accept()
        await harness.wait_for_status(first, "sent")
        second = await harness.accept(messages.request(messages.message(to="+18045550000")))
        await harness.wait_for_status(second, "scheduled")
        other = await harness.accept(messages.request(messages.message(from_="+12025550100")))
        await harness.wait_for_status(other, "sent")
    [report] = await harness.reports(second)
    assert (report["attempt"], report["error"]) == (1, None)
    assert (await harness.provider.stats())["requests"] == 2


async def test_without_limits_nothing_is_stored(bus: Bus, harness: Harness, sender: SenderFactory) -> None:
    request = await harness.accept()
    async with sender():
        await harness.wait_for_status(request, "sent")
    assert (await bus.jetstream.stream_info(f"KV_{LIMITS_BUCKET}")).state.last_seq == 0


async def test_every_process_observes_a_pause_including_one_that_starts_later(nats_url: str) -> None:
    async with process(nats_url) as first, process(nats_url) as second, process(nats_url) as third:
        recording = Pauses(*first)
        recording.listen("twilio", lambda *_: None)
        async with following(Pauses(*second)) as heard:
            recording.record("twilio", None, 600)
            recording.record("twilio", messages.ALICE, 60)

            async def are_heard() -> bool:
                return len(heard) == 2

            await eventually(are_heard)
            assert heard == {None: pytest.approx(600, abs=30), messages.ALICE: pytest.approx(60, abs=30)}
        async with following(Pauses(*third)) as heard:
            assert heard.keys() == {None, messages.ALICE}


@asynccontextmanager
async def following(pauses: Pauses) -> AsyncIterator[dict[str | None, float]]:
    """Follow the pauses of a provider, and yield the seconds of each once they are known."""
    heard: dict[str | None, float] = {}
    pauses.listen("twilio", heard.__setitem__)
    running = asyncio.create_task(pauses.run())
    await pauses.until_known()
    yield heard
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.parametrize("steps", range(4))
async def test_a_pause_that_arrives_at_the_end_does_not_keep_a_process_from_stopping(
    nats_url: str, steps: int
) -> None:
    async with process(nats_url) as (bus, publisher):
        pauses = Pauses(bus, publisher)
        pauses.listen("twilio", lambda *_: None)
        running = asyncio.create_task(pauses.run())
        await pauses.until_known()
        pause = Pause(provider="twilio", until=0).model_dump_json().encode()
        message = Msg(bus.client, subject=PAUSES_SUBJECT, data=pause)
        subscriptions = bus.client._subs.values()  # noqa: SLF001 - there is no other way to be exact
        (subscription,) = (each for each in subscriptions if each.subject == PAUSES_SUBJECT)
        subscription._pending_queue.put_nowait(message)  # noqa: SLF001
        for _ in range(steps):  # of the event loop, between the arrival and the cancellation
            await asyncio.sleep(0)
        running.cancel()
        ended, _ = await asyncio.wait([running], timeout=5)
        assert ended


async def test_no_process_makes_requests_to_a_provider_during_its_pause(
    harness: Harness, sender: SenderFactory
) -> None:
    async def is_paused() -> bool:
        labels = {"provider": "generic_sms", "scope": "provider"}
        return REGISTRY.get_sample_value("messaging_throttled", labels) == 1

    await harness.provider.behave(status=429, retry_after=600)
    async with sender(), sender():
        await harness.accept()
        await eventually(is_paused)
        await harness.provider.recover()
        others = [await harness.accept(messages.request(messages.message())) for _ in range(20)]
        async with providers.running(SMS) as other, sender(url=other.url):
            pass  # a process that starts during the pause
    assert (await harness.provider.stats())["requests"] == 1
    assert all([await harness.statuses(request) == [] for request in others])


async def test_a_message_that_has_moved_very_often_does_not_wait_for_its_limit(
    harness: Harness, sender: SenderFactory
) -> None:
    """Otherwise, senders that stop would return it until it becomes a dead letter, and was never tried."""
    gate = Gate(Limit("slow", rate=1 / 600), Schedules(harness.bus, harness.publisher))
    async with sender(gates={messages.ALICE: [gate]}):
        first = await harness.accept()
        await harness.wait_for_status(first, "sent")  # it takes the only slot of ten minutes
    request = messages.request(attempt=2)
    await return_often(harness, request, MAX_DELIVER // 2)
    async with sender(gates={messages.ALICE: [gate]}):
        await harness.wait_for_status(request, "scheduled")
        await eventually(harness.is_idle)


async def test_senders_that_stop_at_the_same_time_return_each_message_once_each(
    harness: Harness, sender: SenderFactory
) -> None:
    """A message must not be passed from one stopping sender to the next until it becomes a dead letter."""
    senders, waiting = 3, 10
    gates = {messages.ALICE: [Gate(Limit("slow", rate=1 / 600), Schedules(harness.bus, harness.publisher))]}
    async with sender(gates=gates):
        await harness.wait_for_status(await harness.accept(), "sent")  # it takes the only slot of ten minutes
    requests = [await harness.accept() for _ in range(waiting // 2)]
    for _ in range(waiting // 2):
        requests.append(messages.request(attempt=2))
        await return_often(harness, requests[-1], 0)

    for _ in range(3):
        async with AsyncExitStack() as stack:
            workers = [await stack.enter_async_context(sender(gates=gates)) for _ in range(senders)]
            await eventually(lambda: all_are_in_progress(harness, waiting))
            before = await deliveries(harness)
            await asyncio.gather(*(worker.stop() for worker in workers))
            assert await deliveries(harness) - before <= waiting * senders

    assert await harness.dead_letters() == []
    async with sender():
        for request in requests:
            await harness.wait_for_status(request, "sent")
    assert len(await harness.provider.messages()) == 1 + waiting


async def test_a_message_that_was_returned_forty_times_and_never_tried_is_sent(
    harness: Harness, sender: SenderFactory
) -> None:
    """It waits behind another message of its conversation whenever its sender stops."""
    await harness.provider.behave(latency_ms=4_000)
    message = await harness.accept()
    delivered = await return_new(harness, message, 20)
    before = await harness.accept(messages.request(messages.message(body="before")))
    async with sender() as worker:
        await eventually(lambda: is_requested(harness))
        count = await deliveries(harness)
        await delivered.nak()
        await eventually(lambda: is_delivered_again(harness, count))
        await worker.stop()
    assert (await harness.provider.stats())["requests"] == 1
    await return_due(harness, 20)
    await harness.provider.recover()
    async with sender():
        await harness.wait_for_status(message, "sent")
        await eventually(harness.is_idle)
    assert await harness.statuses(before) == ["sent"]
    assert (await harness.provider.stats())["requests"] == 2


async def is_requested(harness: Harness) -> bool:
    return bool((await harness.provider.stats())["requests"] == 1)


async def is_delivered_again(harness: Harness, before: int) -> bool:
    return await deliveries(harness) > before


async def return_new(harness: Harness, request: DeliveryRequest, times: int) -> Msg:
    """Return the only new message this often, and then return the message as it was delivered once more."""
    client = harness.bus.client
    [shard] = (
        each
        for each in sender_shards(Channel.SMS)
        if f"outbound.sms.transactional.{partition_of(request.message.conversation_key)}.*"
        in each.filter_subjects
    )
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    subject = f"$JS.API.CONSUMER.MSG.NEXT.{shard.stream}.{shard.name}"
    question: dict[str, object] = {"batch": 1, "expires": 10**10, "group": PIN_GROUP}
    for number in range(times + 1):
        await client.publish(subject, json.dumps(question).encode(), reply=inbox)
        delivered = await subscription.next_msg(timeout=10)
        question["id"] = (delivered.headers or {})["Nats-Pin-Id"]
        if number < times:
            await delivered.nak()
    unpin = f"$JS.API.CONSUMER.UNPIN.{shard.stream}.{shard.name}"
    await client.request(unpin, json.dumps({"group": PIN_GROUP}).encode())
    await subscription.unsubscribe()
    return delivered


async def infos(harness: Harness) -> list[ConsumerInfo]:
    return [
        await harness.bus.jetstream.consumer_info(each.stream, each.name)
        for each in CONSUMERS
        if each.name.startswith("sender-sms") or each == sender_delayed(Channel.SMS)
    ]


async def all_are_in_progress(harness: Harness, count: int) -> bool:
    return sum(info.num_ack_pending or 0 for info in await infos(harness)) == count


async def deliveries(harness: Harness) -> int:
    """Return how often messages have been delivered to senders."""
    return sum(info.delivered.consumer_seq for info in await infos(harness) if info.delivered)


async def return_often(harness: Harness, request: DeliveryRequest, times: int) -> None:
    """Let a message become due, and return it as often as senders that stop do."""
    message = request.message
    subject = delayed_due_subject(message.channel, message.conversation_key, message.id)
    event = delivery_due(request, time=messages.now())
    await harness.publisher.publish(Stream.DELAYED, Outgoing(subject, None, event.encode()))
    await return_due(harness, times)


async def return_due(harness: Harness, times: int) -> None:
    """Return the only message that is due this often."""
    consumer = sender_delayed(Channel.SMS)
    subscription = await harness.bus.jetstream.pull_subscribe_bind(consumer.name, stream=consumer.stream)
    for _ in range(times):
        [delivered] = await subscription.fetch(1)
        await delivered.nak()
    await subscription.unsubscribe()
