"""Messages that cannot be processed become dead letters."""

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.bus.dead_letters import DeadLetterPublisher, unreadable
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import Stream
from shared.dead_letters import DeadLetter, DeadLetterResolution, Origin
from shared.errors import BadMessageError, BusUnavailableError
from shared.events import Event, decode
from shared.ids import dead_letter_id
from tests import messages

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NATS_LIMIT = 1024 * 1024
ORIGIN = Origin(stream="INBOUND", sequence=7, subject="inbound.message.sms.1.x", consumer="ingest-inbound")
ERROR = BadMessageError("not_json", "the payload is not JSON")


class PublisherStub(Publisher):
    def __init__(self, *, is_available: bool = True) -> None:
        self.published: list[Outgoing] = []
        self._is_available = is_available

    async def publish(self, stream: str, outgoing: Outgoing) -> int:
        if not self._is_available:
            raise BusUnavailableError("NATS is not connected")
        assert stream == Stream.DEADLETTER
        self.published.append(outgoing)
        return len(self.published)


async def publish(payload: bytes) -> tuple[Outgoing, Event[DeadLetter]]:
    """Publish the dead letter of a payload."""
    publisher = PublisherStub()
    await DeadLetterPublisher(publisher, "ingest").publish(payload, ERROR, ORIGIN, at=NOW)
    [outgoing] = publisher.published
    return outgoing, decode(outgoing.payload)


async def test_a_dead_letter_has_its_origin_and_its_reason() -> None:
    outgoing, event = await publish(b"{")

    assert outgoing.subject == "deadletter.inbound.sms"
    assert outgoing.id == event.id == event.data.id
    assert (event.data.reason, event.data.payload, event.data.origin) == ("not_json", "{", ORIGIN)
    assert (event.time, event.source) == (NOW, "/ingest")


async def test_nothing_is_dead_lettered_while_nats_is_down() -> None:
    dead_letters = DeadLetterPublisher(PublisherStub(is_available=False), "ingest")

    with pytest.raises(BusUnavailableError):
        await dead_letters.publish(b"{", ERROR, ORIGIN, at=NOW)


@given(st.sampled_from([b"\x01", b"\xff", b"\x00", b'"', b"a", "é".encode(), "🎈".encode()]))
async def test_the_dead_letter_of_a_payload_of_any_size_fits_into_a_message(unit: bytes) -> None:
    outgoing, event = await publish(unit * (NATS_LIMIT // len(unit)))

    assert len(outgoing.payload) < NATS_LIMIT
    assert event.data.is_cut


@given(st.binary(max_size=100))
def test_a_dead_letter_keeps_any_payload(payload: bytes) -> None:
    dead_letter = unreadable(payload, ERROR, ORIGIN)

    if dead_letter.payload is not None:
        assert dead_letter.payload.encode() == payload
    else:
        assert base64.b64decode(str(dead_letter.payload_base64)) == payload


@pytest.mark.parametrize("payload", [b"\xff", b"a\0b"])
async def test_a_payload_that_is_not_text_is_kept_in_base64(payload: bytes) -> None:
    _, event = await publish(payload)

    assert event.data.payload is None
    assert event.data.payload_base64 is not None


def test_two_consumers_that_fail_on_the_same_message_create_one_dead_letter() -> None:
    other = ORIGIN.model_copy(update={"consumer": "sender-sms-01"})

    assert unreadable(b"x", ERROR, ORIGIN).id == unreadable(b"x", ERROR, other).id


async def test_a_request_that_crashed_its_consumer_can_be_replayed() -> None:
    request = messages.request(generation=2)

    _, event = await publish(messages.accepted(request).encode())

    assert (event.data.message_id, event.data.generation) == (request.message.id, 2)
    assert event.data.request == request


@pytest.mark.parametrize("reason", [None, "", "x" * 1_001])
def test_a_discard_needs_a_reason(reason: str | None) -> None:
    fields = {"dead_letter_id": dead_letter_id("a test"), "resolution": "discarded", "by": "ann"}

    DeadLetterResolution.model_validate({**fields, "reason": "because"})
    with pytest.raises(ValidationError):
        DeadLetterResolution.model_validate({**fields, "reason": reason})


def test_each_line_of_a_message_has_a_dead_letter_of_its_own() -> None:
    ids = {unreadable(b"{", ERROR, ORIGIN, line).id for line in range(3)}
    assert len(ids) == 3
    assert unreadable(b"{", ERROR, ORIGIN).id in ids
