"""Several senders share the messages and keep the order of each conversation."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from random import Random

from services.sender.worker import Worker
from shared.bus.provision import provision
from shared.bus.publisher import Outgoing
from shared.bus.streams import Streams
from shared.bus.topology import CONSUMERS, Stream
from shared.ids import partition_of
from shared.message import DeliveryRequest, Priority
from tests import messages
from tests.integration.sender.conftest import Harness, SenderFactory
from tests.waiting import eventually


async def accept_many(harness: Harness, conversations: int, each: int) -> list[DeliveryRequest]:
    """Accept messages of several conversations, numbered within their conversation."""
    requests = [
        messages.request(messages.message(to=f"+1804{conversation:07}", body=str(number)))
        for number in range(each)
        for conversation in range(conversations)
    ]
    for start in range(0, len(requests), conversations):
        await asyncio.gather(*map(harness.accept, requests[start : start + conversations]))
    return requests


async def sent(harness: Harness) -> dict[str, list[int]]:
    """Return the numbers of the messages that the provider has accepted, by conversation and in order."""
    bodies = defaultdict(list)
    for accepted in await harness.provider.messages():
        bodies[accepted["payload"]["to"]].append(int(accepted["payload"]["body"]))
    return dict(bodies)


async def until_sent(harness: Harness, count: int) -> None:
    async def are_sent() -> bool:
        return (await harness.provider.stats())["accepted"] >= count

    await eventually(are_sent, within=60)


async def redelivered(harness: Harness) -> int:
    infos: Sequence[int] = [
        (await harness.bus.jetstream.consumer_info(each.stream, each.name)).num_redelivered or 0
        for each in CONSUMERS
        if each.name.startswith("sender-sms")
    ]
    return sum(infos)


async def test_order_is_kept_while_senders_come_and_go(harness: Harness, sender: SenderFactory) -> None:
    """The provider takes a tenth of a second: each sender holds far more messages than it is sending."""
    await harness.provider.behave(latency_ms=100)
    accepting = asyncio.create_task(accept_many(harness, 60, 30))
    random = Random(1)
    async with sender():
        for _ in range(4):
            async with AsyncExitStack() as stack:
                for _ in range(2):
                    await asyncio.sleep(random.uniform(0, 0.7))
                    await stack.enter_async_context(sender())
                await asyncio.sleep(random.uniform(0, 0.7))
        await until_sent(harness, 1_800)
        await accepting
        await eventually(harness.is_idle)
    in_order = list(range(30))
    assert {to: numbers for to, numbers in (await sent(harness)).items() if numbers != in_order} == {}
    assert (await harness.provider.stats())["requests"] == 1_800
    assert await harness.dead_letters() == []


async def test_a_second_sender_adds_its_own_capacity(harness: Harness, sender: SenderFactory) -> None:
    """Each sender has up to 32 requests in progress, which take four seconds."""
    await harness.provider.behave(latency_ms=4_000)
    async with sender() as first, sender() as second:

        async def have_equal_shares() -> bool:
            return len(shards_of(first)) == len(shards_of(second)) == 8

        await eventually(have_equal_shares)
        await accept_many(harness, 500, 1)
        await until_sent(harness, 64)
        events = await harness.bus.jetstream.stream_info(Stream.EVENTS)
        assert events.state.messages == 0  # no request is finished, which would have made room for others


def shards_of(worker: Worker) -> list[str]:
    """Return the shards for SMS that a sender is reading."""
    sms, _ = worker._channels  # noqa: SLF001 - only the sender itself knows
    return [consumer.name for consumer in sms._running if consumer.is_pinned]  # noqa: SLF001


async def test_messages_keep_their_place_during_an_outage_of_the_provider(
    harness: Harness, sender: SenderFactory
) -> None:
    """The two senders probe the provider many times, but few messages move between them."""
    await harness.provider.behave(status=503)
    requests = await accept_many(harness, 30, 4)
    async with sender(failures=1, pause=0.2), sender(failures=1, pause=0.2):
        await asyncio.sleep(4)
        probes = (await harness.provider.stats())["requests"]
        assert await redelivered(harness) <= 4
        await harness.provider.recover()
        await until_sent(harness, 120)
        await eventually(harness.is_idle)
    assert probes > 10
    statuses = [await harness.statuses(request) for request in requests]
    assert {each[-1] for each in statuses} == {"sent"}
    assert statuses.count(["sent"]) > 60
    assert await harness.dead_letters() == []


async def test_senders_adopt_another_number_of_shards(harness: Harness, sender: SenderFactory) -> None:
    await harness.provider.behave(latency_ms=300)
    accepting = asyncio.create_task(accept_many(harness, 60, 30))
    async with sender(), sender():
        for count in (3, 16, 1, 8):
            await until_sent(harness, min((await harness.provider.stats())["accepted"] + 100, 1_800))
            await provision(harness.bus.jetstream, shards=count)
        await until_sent(harness, 1_800)
        await accepting
        await eventually(harness.is_idle)
    in_order = list(range(30))
    assert {to: numbers for to, numbers in (await sent(harness)).items() if numbers != in_order} == {}
    assert (await harness.provider.stats())["requests"] == 1_800
    assert await harness.dead_letters() == []


async def test_senders_wait_until_shards_are_provisioned(harness: Harness, sender: SenderFactory) -> None:
    jetstream, streams = harness.bus.jetstream, Streams(harness.bus)
    shards = [name for name in await streams.consumers_of(Stream.OUTBOUND) if name.startswith("sender-")]
    for name in shards:
        await jetstream.delete_consumer(Stream.OUTBOUND, name)
    request = await harness.accept()
    async with sender() as worker:

        async def is_ready() -> bool:
            return await worker.unready_reason() is None

        assert await worker.unready_reason() == "NATS: the shards are not provisioned"
        await provision(jetstream)
        await eventually(is_ready)
        await harness.wait_for_status(request, "sent")


async def test_messages_of_every_priority_and_of_version_0_1_are_sent(
    harness: Harness, sender: SenderFactory
) -> None:
    requests = [
        await harness.accept(messages.request(messages.message(priority=priority))) for priority in Priority
    ]
    old = messages.accepted()
    key = old.data.message.conversation_key
    subject = f"outbound.sms.{partition_of(key)}.{key}"
    await harness.publisher.publish(Stream.OUTBOUND, Outgoing(subject, old.id, old.encode()))
    async with sender():
        for request in (*requests, old.data):
            await harness.wait_for_status(request, "sent")
        await eventually(harness.is_idle)
    assert (await harness.provider.stats())["requests"] == 3
