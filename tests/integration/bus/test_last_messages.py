"""Reads of the last messages of subjects, which share requests."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shared.bus.client import Bus, connect
from shared.bus.direct_get import Answer
from shared.bus.last_messages import LastMessages
from shared.bus.provision import provision
from shared.bus.publisher import Outgoing, Publisher
from shared.errors import BusUnavailableError
from tests import infrastructure

LEDGER = "KV_DELIVERIES"


def subject(number: int) -> str:
    return f"$KV.DELIVERIES.{number}"


async def fill(publisher: Publisher, count: int, payload: bytes = b"value ") -> None:
    await asyncio.gather(
        *(
            publisher.publish(LEDGER, Outgoing(subject(number), None, payload + str(number).encode()))
            for number in range(count)
        )
    )


@pytest.fixture
def requests(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the number of subjects in each request."""
    requests: list[int] = []
    read = bus.last_messages

    async def last_messages(stream: str, subjects: Sequence[str]) -> Answer:
        requests.append(len(subjects))
        return await read(stream, subjects)

    monkeypatch.setattr(bus, "last_messages", last_messages)
    return requests


async def payloads(reader: LastMessages, count: int) -> list[bytes | None]:
    found = await asyncio.gather(*(reader.get(subject(number)) for number in range(count)))
    return [each.payload if each else None for each in found]


async def test_the_last_message_of_one_subject_is_read(bus: Bus, publisher: Publisher) -> None:
    reader = LastMessages(bus, LEDGER)
    assert await reader.get(subject(0)) is None
    await fill(publisher, 1)
    await fill(publisher, 1, b"newer ")
    found = await reader.get(subject(0))
    assert found is not None
    assert (found.subject, found.sequence, found.payload) == (subject(0), 2, b"newer 0")


@pytest.mark.parametrize(("year", "count"), [(1, 1), (1600, 1), (2262, 0), (2263, 0), (9999, 0)])
async def test_messages_since_any_year_are_read(
    bus: Bus, publisher: Publisher, year: int, count: int
) -> None:
    await fill(publisher, 1)
    since = datetime(year, 6, 1, tzinfo=UTC)
    answer = await bus.messages_since(LEDGER, since, count=10, subject=subject(0))
    assert (len(answer.messages), answer.is_complete) == (count, True)


async def test_many_reads_share_requests(bus: Bus, publisher: Publisher, requests: list[int]) -> None:
    await fill(publisher, 500)
    assert await payloads(LastMessages(bus, LEDGER), 500) == [b"value %d" % number for number in range(500)]
    assert sum(requests) == 500
    assert len(requests) <= 4


async def test_reads_of_the_same_subject_share_its_answer(
    bus: Bus, publisher: Publisher, requests: list[int]
) -> None:
    await fill(publisher, 1)
    reader = LastMessages(bus, LEDGER)
    found = await asyncio.gather(*(reader.get(subject(0)) for _ in range(50)))
    assert {each.sequence for each in found if each} == {1}
    assert requests == [1]


async def test_subjects_without_messages_are_missing_from_a_shared_response(
    bus: Bus, publisher: Publisher
) -> None:
    await fill(publisher, 10)
    found = await payloads(LastMessages(bus, LEDGER), 30)
    assert found == [b"value %d" % number for number in range(10)] + [None] * 20
    assert await payloads(LastMessages(bus, "KV_IDEMPOTENCY"), 30) == [None] * 30


async def test_subjects_that_the_server_omits_are_requested_again(
    bus: Bus, publisher: Publisher, requests: list[int]
) -> None:
    await fill(publisher, 20, b"x" * 600_000)
    found = await payloads(LastMessages(bus, LEDGER), 20)
    assert [each and each[600_000:] for each in found] == [b"%d" % number for number in range(20)]
    assert len(requests) > 1


async def test_a_read_sees_everything_that_was_stored_before(bus: Bus, publisher: Publisher) -> None:
    """Many readers and writers at the same time, with more reads than fit into the requests in flight."""
    reader = LastMessages(bus, LEDGER)

    async def write_and_read(number: int) -> None:
        for _ in range(20):
            sequence = await publisher.publish(LEDGER, Outgoing(subject(number), None, b"x"))
            found = await reader.get(subject(number))
            assert found is not None
            assert found.sequence == sequence

    await asyncio.gather(*(write_and_read(number) for number in range(300)))


async def test_a_cancelled_read_does_not_affect_the_others(bus: Bus, publisher: Publisher) -> None:
    await fill(publisher, 2)
    reader = LastMessages(bus, LEDGER)
    reads = [asyncio.create_task(reader.get(subject(number))) for number in (0, 0, 1)]
    await asyncio.sleep(0)
    reads[0].cancel()
    await asyncio.wait(reads)
    assert [each.cancelled() for each in reads] == [True, False, False]
    assert reads[1].result()
    assert reads[2].result()


@pytest.mark.parametrize("count", [1, 20])
async def test_a_stream_that_does_not_answer_is_not_taken_for_an_empty_one(bus: Bus, count: int) -> None:
    with pytest.raises(BusUnavailableError):
        await payloads(LastMessages(bus, "MISSING"), count)


async def test_reads_fail_during_an_outage_and_work_after_it(tmp_path: Path) -> None:
    async with infrastructure.nats(tmp_path) as server, connect(server.url, name="test") as bus:
        await bus.until_connected()
        await provision(bus.jetstream)
        reader = LastMessages(bus, LEDGER)
        await server.pause()
        hanging = asyncio.gather(*(reader.get(subject(number)) for number in range(500)))
        await asyncio.sleep(0.1)
        await server.kill()  # the responses can no longer arrive, so the reads do not wait for them
        async with asyncio.timeout(3):
            with pytest.raises(BusUnavailableError):
                await hanging
            with pytest.raises(BusUnavailableError):
                await reader.get(subject(0))
        await server.start()
        await bus.until_connected()
        assert await reader.get(subject(0)) is None
