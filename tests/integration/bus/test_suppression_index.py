"""No opt-out is overlooked, although almost all checks are answered from memory."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from nats.js import JetStreamContext

from shared.bus import suppression_index
from shared.bus.client import Bus, connect
from shared.bus.direct_get import Answer
from shared.bus.provision import provision
from shared.bus.publisher import Outgoing, Publisher, publishing
from shared.bus.suppression_index import SuppressionIndex
from shared.bus.suppression_list import SuppressionList
from shared.bus.topology import Stream, suppression_subject
from shared.channels import Channel
from shared.events import suppression_changed
from shared.message import Message
from shared.suppressions import SuppressionChange, SuppressionSource, SuppressionState
from tests import messages
from tests.waiting import eventually

START = datetime(2026, 1, 1, tzinfo=UTC)


def recipient(number: int) -> str:
    return f"+1804{number:07}"


def change(number: int, *, opted_out: bool = True, step: int = 0) -> SuppressionChange:
    return SuppressionChange(
        channel=Channel.SMS,
        ours=messages.ALICE if number % 2 else None,
        theirs=recipient(number),
        state=SuppressionState.OPTED_OUT if opted_out else SuppressionState.OPTED_IN,
        source=SuppressionSource.KEYWORD,
        occurred_at=START + timedelta(seconds=step),
    )


def subject(number: int) -> str:
    return suppression_subject(Channel.SMS, change(number).key)


def message(number: int) -> Message:
    return messages.message(to=recipient(number))


async def record_many(publisher: Publisher, count: int) -> None:
    events = [suppression_changed(change(number)) for number in range(count)]
    outgoing = [Outgoing(subject(number), event.id, event.encode()) for number, event in enumerate(events)]
    await asyncio.gather(*(publisher.publish(Stream.SUPPRESSIONS, each) for each in outgoing))


async def until_loaded(index: SuppressionIndex) -> None:
    """Wait until the index is loaded: it then knows that one of these subjects has no message."""

    async def is_loaded() -> bool:
        return await index.with_messages(["suppression.sms.unknown"]) == []

    await eventually(is_loaded)


@pytest.fixture
async def other_process(nats_url: str) -> AsyncIterator[SuppressionList]:
    async with connect(nats_url, name="other") as bus, publishing(bus) as publisher:
        await bus.until_connected()
        yield SuppressionList(bus, publisher)


async def test_no_change_is_overlooked_while_many_are_recorded(
    bus: Bus, publisher: Publisher, other_process: SuppressionList, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of 200 recipients opts out and in again, in one process, before 10 messages to it in another."""
    read, random = bus.next_messages, Random(0)

    async def read_slowly(stream: str, first: int, *, count: int, subject: str) -> Answer:
        answer = await read(stream, first, count=count, subject=subject)
        await asyncio.sleep(random.uniform(0, 0.01))  # so that changes are recorded meanwhile
        return answer

    monkeypatch.setattr(bus, "next_messages", read_slowly)
    here = SuppressionList(bus, publisher)

    async def states(number: int) -> set[bool]:
        found = await asyncio.gather(*(here.suppression_of(message(number)) for _ in range(10)))
        return {each is not None for each in found}

    async def opt_out_and_in(numbers: range) -> None:
        for number in numbers:
            await other_process.record(change(number))
            assert await states(number) == {True}
            await other_process.record(change(number, opted_out=False, step=1))
            assert await states(number) == {False}

    async def send_to_strangers() -> None:
        while True:
            assert await here.suppression_of(message(9_999)) is None

    strangers = [asyncio.create_task(send_to_strangers()) for _ in range(100)]
    await asyncio.gather(*(opt_out_and_in(range(first, first + 5)) for first in range(0, 200, 5)))
    for task in strangers:
        task.cancel()
    await asyncio.wait(strangers)
    assert all(task.cancelled() for task in strangers)


async def test_thousands_of_changes_are_loaded(bus: Bus, publisher: Publisher) -> None:
    await record_many(publisher, 3_000)
    index = SuppressionIndex(bus)
    everything = [subject(number) for number in range(3_000)]
    assert await index.with_messages(["suppression.sms.unknown"]) == ["suppression.sms.unknown"]
    await until_loaded(index)
    assert await index.with_messages([*everything, "suppression.sms.unknown"]) == everything


async def test_opt_outs_are_known_while_the_index_is_loaded(bus: Bus, publisher: Publisher) -> None:
    await record_many(publisher, 3_000)
    suppressions = SuppressionList(bus, publisher)
    found = await asyncio.gather(*(suppressions.suppression_of(message(number)) for number in range(3_010)))
    assert [each is not None for each in found] == [True] * 3_000 + [False] * 10


async def test_a_stream_that_was_purged_is_noticed(
    bus: Bus, publisher: Publisher, jetstream: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suppression_index, "_MISSING_SECONDS", 0.2)
    await record_many(publisher, 10)
    suppressions, index = SuppressionList(bus, publisher), SuppressionIndex(bus)
    await until_loaded(index)
    assert await suppressions.suppression_of(message(1))

    await jetstream.purge_stream(Stream.SUPPRESSIONS)
    assert await suppressions.suppression_of(message(1)) is None
    await suppressions.record(change(20))
    assert await suppressions.suppression_of(message(20))
    await until_loaded(index)
    assert await index.with_messages([subject(1), subject(20)]) == [subject(20)]


@pytest.mark.parametrize("restored", [0, 5, 10, 12])
async def test_a_stream_that_was_replaced_is_noticed(
    bus: Bus,
    publisher: Publisher,
    jetstream: JetStreamContext,
    monkeypatch: pytest.MonkeyPatch,
    restored: int,
) -> None:
    """The new stream has some of the same sequences, or more, but other messages."""
    monkeypatch.setattr(suppression_index, "_MISSING_SECONDS", 0.2)
    await record_many(publisher, 10)
    suppressions, index = SuppressionList(bus, publisher), SuppressionIndex(bus)
    await until_loaded(index)
    assert await suppressions.suppression_of(message(9))

    await jetstream.delete_stream(Stream.SUPPRESSIONS)
    await provision(jetstream)
    for number in range(100, 100 + restored):
        await suppressions.record(change(number))
    for number in range(100, 100 + restored):
        assert await suppressions.suppression_of(message(number))
    assert await suppressions.suppression_of(message(9)) is None
    await until_loaded(index)
    expected = [subject(number) for number in range(100, 100 + restored)]
    assert await index.with_messages([subject(9), *expected]) == expected


async def test_an_unreadable_change_affects_only_its_own_pair(bus: Bus, publisher: Publisher) -> None:
    await publisher.publish(Stream.SUPPRESSIONS, Outgoing(subject(0), None, b"{}"))
    suppressions = SuppressionList(bus, publisher)
    for _ in range(3):
        assert await suppressions.suppression_of(message(1)) is None
        suppression = await suppressions.suppression_of(message(0))
        assert suppression is not None
        assert suppression.source is SuppressionSource.UNREADABLE


async def test_a_task_that_is_cancelled_does_not_stop_the_index(bus: Bus) -> None:
    index = SuppressionIndex(bus)
    await until_loaded(index)
    asking = asyncio.create_task(index.with_messages(["suppression.sms.unknown"]))
    await asyncio.sleep(0)
    assert index._next is not None  # noqa: SLF001 - no other code has this task
    index._next.cancel()  # noqa: SLF001
    await asyncio.wait({asking})
    assert await index.with_messages(["suppression.sms.unknown"]) == []
