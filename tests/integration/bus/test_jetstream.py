"""What the sender relies on in JetStream, of the real one and of the one in memory that simulations use."""

from datetime import timedelta
from typing import Any, Protocol

import nats.js.errors
import pytest
from nats.js import JetStreamContext

from shared.bus.publisher import Outgoing, Publisher, RefusedError
from shared.bus.topology import Stream, delayed_due_subject, delayed_wait_subject
from shared.channels import Channel
from shared.identity import EventId, event_id
from tests import messages
from tests.jetstream import JetStream
from tests.waiting import eventually

LEDGER = "KV_DELIVERIES"
MESSAGE = messages.message()
WAIT = delayed_wait_subject(MESSAGE.id)
DUE = delayed_due_subject(Channel.SMS, MESSAGE.conversation_key, MESSAGE.id)


class Server(Protocol):
    async def store(self, stream: str, outgoing: Outgoing) -> int: ...

    async def last(self, stream: str, subject: str) -> tuple[int, bytes] | None: ...


class Real:
    def __init__(self, jetstream: JetStreamContext, publisher: Publisher) -> None:
        self._jetstream = jetstream
        self._publisher = publisher

    async def store(self, stream: str, outgoing: Outgoing) -> int:
        return await self._publisher.publish(stream, outgoing)

    async def last(self, stream: str, subject: str) -> tuple[int, bytes] | None:
        try:
            found = await self._jetstream.get_last_msg(stream, subject, direct=True)
        except nats.js.errors.NotFoundError:
            return None
        return found.seq or 0, found.data or b""


class InMemory:
    def __init__(self) -> None:
        self._server = JetStream(messages.now)

    async def store(self, stream: str, outgoing: Outgoing) -> int:
        return self._server.store(stream, outgoing)

    async def last(self, stream: str, subject: str) -> tuple[int, bytes] | None:
        self._server.publish_what_is_due()
        found = self._server.last(stream, subject)
        return (found.sequence, found.payload) if found else None


@pytest.fixture(params=[Real, InMemory])
def server(request: pytest.FixtureRequest) -> Server:
    if request.param is InMemory:
        return InMemory()
    return Real(request.getfixturevalue("jetstream"), request.getfixturevalue("publisher"))


def entry(key: str, revision: int) -> Outgoing:
    return Outgoing(
        f"$KV.DELIVERIES.{key}", None, b"x", {"Nats-Expected-Last-Subject-Sequence": str(revision)}
    )


def event(payload: bytes, id_: EventId, status: str = "sent") -> Outgoing:
    return Outgoing(f"events.sms.{status}", id_, payload)


def schedule(payload: bytes, seconds: float, id_: EventId | None = None) -> Outgoing:
    at = (messages.now() + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")
    headers = {"Nats-Schedule": f"@at {at.replace('+00:00', 'Z')}", "Nats-Schedule-Target": DUE}
    return Outgoing(WAIT, id_, payload, headers)


def some_id(name: str) -> EventId:
    return event_id(MESSAGE.id, name)


async def is_due(server: Server, payload: bytes) -> None:
    async def look() -> bool:
        found: Any = await server.last(Stream.DELAYED, DUE)
        return found is not None and found[1] == payload

    await eventually(look)


async def test_an_entry_is_written_only_over_the_one_that_was_read(server: Server) -> None:
    first = await server.store(LEDGER, entry("a", 0))
    other = await server.store(LEDGER, entry("b", 0))
    for revision in (0, other):
        with pytest.raises(RefusedError):
            await server.store(LEDGER, entry("a", revision))
    second = await server.store(LEDGER, entry("a", first))

    assert (first, other, second) == (1, 2, 3)
    assert await server.last(LEDGER, "$KV.DELIVERIES.a") == (3, b"x")


async def test_a_known_id_is_not_stored_again_in_its_stream(server: Server) -> None:
    first = await server.store(Stream.EVENTS, event(b"1", some_id("x")))
    again = await server.store(Stream.EVENTS, event(b"2", some_id("x"), "failed"))
    await server.store(Stream.DEADLETTER, Outgoing("deadletter.outbound.sms", some_id("x"), b"3"))

    assert first == again == 1
    assert await server.last(Stream.EVENTS, "events.sms.failed") is None
    assert await server.last(Stream.DEADLETTER, "deadletter.outbound.sms") == (1, b"3")


async def test_what_is_due_goes_to_its_target_and_leaves_no_schedule(server: Server) -> None:
    await server.store(Stream.DELAYED, schedule(b"soon", 0.5))
    assert await server.last(Stream.DELAYED, WAIT)
    assert await server.last(Stream.DELAYED, DUE) is None

    await is_due(server, b"soon")
    assert await server.last(Stream.DELAYED, WAIT) is None


async def test_a_schedule_replaces_the_one_before_even_if_that_was_for_later(server: Server) -> None:
    await server.store(Stream.DELAYED, schedule(b"third step", 3_600))
    await server.store(Stream.DELAYED, schedule(b"second step", -60))

    await is_due(server, b"second step")
    assert await server.last(Stream.DELAYED, WAIT) is None


async def test_a_schedule_that_was_replaced_is_not_stored_again_under_its_id(server: Server) -> None:
    await server.store(Stream.DELAYED, schedule(b"third step", 3_600, some_id("third")))
    await server.store(Stream.DELAYED, schedule(b"second step", -60))
    await is_due(server, b"second step")

    await server.store(Stream.DELAYED, schedule(b"third step", 3_600, some_id("third")))
    assert await server.last(Stream.DELAYED, WAIT) is None
    await server.store(Stream.DELAYED, schedule(b"third step", 3_600))
    assert await server.last(Stream.DELAYED, WAIT)
