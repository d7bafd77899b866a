"""How what cannot be stored becomes a dead letter."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bus.dead_letters import DeadLetterPublisher
from shared.bus.publisher import Outgoing
from shared.bus.publisher import Publisher as RealPublisher
from shared.bus.topology import Stream
from shared.errors import BadMessageError, BusUnavailableError
from shared.events import DeadLettered, Origin, decode
from tests import messages

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NATS_LIMIT = 1024 * 1024
ORIGIN = Origin(stream="INBOUND", sequence=7, subject="inbound.message.sms.1.x", consumer="ingest-inbound")
ERROR = BadMessageError("not_json", "it is no JSON")


class Publisher(RealPublisher):
    def __init__(self, *, up: bool = True) -> None:
        self.published: list[Outgoing] = []
        self._up = up

    async def publish(self, stream: str, outgoing: Outgoing) -> int:
        if not self._up:
            raise BusUnavailableError("NATS is not connected")
        assert stream == Stream.DEADLETTER
        self.published.append(outgoing)
        return len(self.published)


async def test_it_says_where_it_comes_from_and_why() -> None:
    publisher = Publisher()

    await DeadLetterPublisher(publisher, "ingest").publish(b"{", ERROR, ORIGIN, at=NOW)

    [outgoing] = publisher.published
    event = decode(outgoing.payload)
    assert isinstance(event, DeadLettered)
    assert outgoing.subject == "deadletter.inbound.sms"
    assert outgoing.id == event.id == event.data.id
    assert (event.data.reason, event.data.payload, event.data.origin) == ("not_json", "{", ORIGIN)
    assert event.time == NOW


async def test_without_a_broker_nothing_is_given_up() -> None:
    dead_letters = DeadLetterPublisher(Publisher(up=False), "ingest")

    with pytest.raises(BusUnavailableError):
        await dead_letters.publish(b"{", ERROR, ORIGIN, at=NOW)


@given(st.sampled_from([b"\x01", b"\xff", b"\x00", b'"', b"a", "é".encode(), "🎈".encode()]))
async def test_however_large_the_payload_it_fits_into_a_message(unit: bytes) -> None:
    publisher = Publisher()

    await DeadLetterPublisher(publisher, "ingest").publish(unit * (NATS_LIMIT // len(unit)), ERROR, ORIGIN, at=NOW)

    [outgoing] = publisher.published
    assert len(outgoing.payload) < NATS_LIMIT
    event = decode(outgoing.payload)
    assert isinstance(event, DeadLettered)
    assert event.data.is_cut


@pytest.mark.parametrize("payload", [b"\xff", b"a\0b"])
async def test_what_is_no_text_is_kept_in_base64(payload: bytes) -> None:
    publisher = Publisher()

    await DeadLetterPublisher(publisher, "ingest").publish(payload, ERROR, ORIGIN, at=NOW)

    event = decode(publisher.published[0].payload)
    assert isinstance(event, DeadLettered)
    assert event.data.payload is None
    assert event.data.payload_base64 is not None


async def test_something_to_send_that_a_consumer_died_of_can_be_replayed_as_that() -> None:
    publisher = Publisher()
    request = messages.request(generation=2)

    await DeadLetterPublisher(publisher, "ingest").publish(
        messages.accepted(request).encode(), ERROR, ORIGIN, at=NOW
    )

    event = decode(publisher.published[0].payload)
    assert isinstance(event, DeadLettered)
    assert (event.data.message_id, event.data.generation) == (request.message.id, 2)
    assert event.data.request == request
