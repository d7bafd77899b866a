"""The behaviour that the sender needs, of the real JetStream and of the one in memory."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from shared.bus.client import Bus
from shared.bus.direct_get import Answer
from shared.bus.publisher import Outgoing, Publisher, PublishRejectedError
from shared.bus.topology import Stream, delayed_due_subject, delayed_wait_subject
from shared.channels import Channel
from shared.ids import EventId, event_id
from tests import messages
from tests.jetstream import JetStream
from tests.waiting import eventually

LEDGER = "KV_DELIVERIES"


class Server(ABC):
    """A server, with the subjects of a message that is new to it."""

    def __init__(self) -> None:
        message = messages.message()
        self.id = message.id
        self.wait = delayed_wait_subject(message.id)
        self.due = delayed_due_subject(Channel.SMS, message.conversation_key, message.id)

    @abstractmethod
    async def store(self, stream: str, outgoing: Outgoing) -> int: ...

    @abstractmethod
    async def last_messages(self, stream: str, subjects: Sequence[str]) -> Answer: ...

    @abstractmethod
    async def next_messages(self, stream: str, first: int, *, count: int, subject: str) -> Answer: ...

    async def last(self, stream: str, subject: str) -> tuple[int, bytes] | None:
        for found in (await self.last_messages(stream, [subject])).messages:
            return found.sequence, found.payload
        return None

    async def schedule(self, payload: bytes, seconds: float, name: str | None = None) -> None:
        at = (messages.now() + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")
        headers = {
            "Nats-Schedule": f"@at {at.replace('+00:00', 'Z')}",
            "Nats-Schedule-Target": self.due,
        }
        id_ = self.some_id(name) if name else None
        await self.store(Stream.DELAYED, Outgoing(self.wait, id_, payload, headers))

    async def is_due(self, payload: bytes) -> None:
        async def probe() -> bool:
            found: Any = await self.last(Stream.DELAYED, self.due)
            return found is not None and found[1] == payload

        await eventually(probe)

    def some_id(self, name: str) -> EventId:
        return event_id(self.id, name)


class Real(Server):
    def __init__(self, bus: Bus, publisher: Publisher) -> None:
        super().__init__()
        self._bus = bus
        self._publisher = publisher

    async def store(self, stream: str, outgoing: Outgoing) -> int:
        return await self._publisher.publish(stream, outgoing)

    async def last_messages(self, stream: str, subjects: Sequence[str]) -> Answer:
        return await self._bus.last_messages(stream, subjects)

    async def next_messages(self, stream: str, first: int, *, count: int, subject: str) -> Answer:
        return await self._bus.next_messages(stream, first, count=count, subject=subject)


class InMemory(Server):
    def __init__(self) -> None:
        super().__init__()
        self._server = JetStream(messages.now)

    async def store(self, stream: str, outgoing: Outgoing) -> int:
        return self._server.store(stream, outgoing)

    async def last_messages(self, stream: str, subjects: Sequence[str]) -> Answer:
        self._server.publish_due()
        return self._server.last_messages(stream, subjects)

    async def next_messages(self, stream: str, first: int, *, count: int, subject: str) -> Answer:
        return self._server.next_messages(stream, first, count=count, subject=subject)


@pytest.fixture(params=[Real, InMemory])
def server(request: pytest.FixtureRequest) -> Server:
    if request.param is InMemory:
        return InMemory()
    return Real(request.getfixturevalue("bus"), request.getfixturevalue("publisher"))


def entry(key: str, revision: int) -> Outgoing:
    return Outgoing(
        f"$KV.DELIVERIES.{key}", None, b"x", {"Nats-Expected-Last-Subject-Sequence": str(revision)}
    )


def event(payload: bytes, id_: EventId, status: str = "sent") -> Outgoing:
    return Outgoing(f"events.sms.{status}", id_, payload)


async def test_an_entry_is_only_written_over_the_one_that_was_read(server: Server) -> None:
    first = await server.store(LEDGER, entry("a", 0))
    other = await server.store(LEDGER, entry("b", 0))
    for revision in (0, other):
        with pytest.raises(PublishRejectedError):
            await server.store(LEDGER, entry("a", revision))
    second = await server.store(LEDGER, entry("a", first))

    assert (first, other, second) == (1, 2, 3)
    assert await server.last(LEDGER, "$KV.DELIVERIES.a") == (3, b"x")


async def test_a_known_id_is_not_stored_again_in_its_stream(server: Server) -> None:
    first = await server.store(Stream.EVENTS, event(b"1", server.some_id("x")))
    again = await server.store(Stream.EVENTS, event(b"2", server.some_id("x"), "failed"))
    await server.store(Stream.DEADLETTER, Outgoing("deadletter.outbound.sms", server.some_id("x"), b"3"))

    assert first == again == 1
    assert await server.last(Stream.EVENTS, "events.sms.failed") is None
    assert await server.last(Stream.DEADLETTER, "deadletter.outbound.sms") == (1, b"3")


def contents(answer: Answer) -> list[tuple[str, int, bytes]]:
    return [(each.subject, each.sequence, each.payload) for each in answer.messages]


async def test_the_last_messages_of_subjects_are_read_in_one_request(server: Server) -> None:
    for subject in ("events.sms.sent", "events.sms.failed", "events.sms.sent", "events.email.sent"):
        await server.store(Stream.EVENTS, Outgoing(subject, None, subject.encode()))
    subjects = ["events.sms.sent", "events.sms.failed", "events.sms.expired"]

    assert contents(await server.last_messages(Stream.EVENTS, subjects)) == [
        ("events.sms.failed", 2, b"events.sms.failed"),
        ("events.sms.sent", 3, b"events.sms.sent"),
    ]
    assert (await server.last_messages(Stream.EVENTS, subjects)).is_complete
    assert await server.last_messages(Stream.INBOUND, subjects) == Answer([])


async def test_the_messages_from_a_sequence_on_are_read_in_one_request(server: Server) -> None:
    for number in range(1, 6):
        subject = "events.email.sent" if number == 4 else "events.sms.sent"
        await server.store(Stream.EVENTS, Outgoing(subject, None, b"%d" % number))

    async def read(first: int, count: int) -> tuple[list[int], bool]:
        answer = await server.next_messages(Stream.EVENTS, first, count=count, subject="events.sms.*")
        return [each.sequence for each in answer.messages], answer.is_complete

    assert await read(1, 10) == ([1, 2, 3, 5], True)
    assert await read(2, 3) == ([2, 3, 5], True)
    assert await read(2, 2) == ([2, 3], False)
    assert await read(4, 1) == ([5], True)
    assert await read(6, 10) == ([], True)


async def test_a_due_schedule_is_published_to_its_target_and_removed(server: Server) -> None:
    await server.schedule(b"soon", 0.5)
    assert await server.last(Stream.DELAYED, server.wait)
    assert await server.last(Stream.DELAYED, server.due) is None

    await server.is_due(b"soon")
    assert await server.last(Stream.DELAYED, server.wait) is None


async def test_a_schedule_replaces_the_previous_one_even_if_that_was_later(server: Server) -> None:
    await server.schedule(b"third step", 3_600)
    await server.schedule(b"second step", -60)

    await server.is_due(b"second step")
    assert await server.last(Stream.DELAYED, server.wait) is None


async def test_a_schedule_that_was_replaced_is_not_stored_again_under_its_id(server: Server) -> None:
    await server.schedule(b"third step", 3_600, "third")
    await server.schedule(b"second step", -60)
    await server.is_due(b"second step")

    await server.schedule(b"third step", 3_600, "third")
    assert await server.last(Stream.DELAYED, server.wait) is None
    await server.schedule(b"third step", 3_600)
    assert await server.last(Stream.DELAYED, server.wait)
