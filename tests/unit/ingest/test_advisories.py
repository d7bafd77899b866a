"""Advisories of the server become dead letters."""

import json
from datetime import UTC, datetime

import pytest

from services.ingest.advisories import AdvisoryHandler
from shared.bus.consumer import Done, Outcome, StreamMessage
from shared.bus.dead_letters import DeadLetterPublisher
from shared.bus.streams import Stored, Streams
from shared.dead_letters import Origin
from shared.errors import BadMessageError, BusUnavailableError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MAX_DELIVER = {
    "type": "io.nats.jetstream.advisory.v1.max_deliver",
    "id": "x",
    "timestamp": "2026-03-01T12:00:00Z",
    "stream": "OUTBOUND",
    "consumer": "sender-sms-00",
    "stream_seq": 5,
    "deliveries": 20,
}
TERMINATED = {
    **MAX_DELIVER,
    "type": "io.nats.jetstream.advisory.v1.terminated",
    "consumer_seq": 9,
    "reason": "no use",
}
ORIGIN_OF_ADVISORY = Origin(stream="ADVISORIES", sequence=1, subject="$JS.x", consumer="ingest-advisories")
SUBJECT = "outbound.sms.1.x"


class StreamsStub(Streams):
    def __init__(self, answer: Stored | Exception | None) -> None:
        self._answer = answer

    async def message(self, stream: str, sequence: int) -> Stored | None:
        assert (stream, sequence) in {("OUTBOUND", 5), ("DELAYED", 5)}
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


class DeadLettersStub(DeadLetterPublisher):
    def __init__(self) -> None:
        self.published: list[tuple[bytes, str, str, Origin]] = []

    async def publish(
        self,
        payload: bytes,
        error: BadMessageError,
        origin: Origin,
        *,
        at: datetime,  # noqa: ARG002
        line: int = 0,  # noqa: ARG002
    ) -> None:
        self.published.append((payload, error.code, str(error), origin))


async def handle(payload: bytes, answer: Stored | Exception | None) -> tuple[Outcome, DeadLettersStub]:
    """Handle an advisory; `answer` is the answer to the request for its message."""
    dead_letters = DeadLettersStub()
    handler = AdvisoryHandler(StreamsStub(answer), dead_letters)
    [outcome] = await handler([StreamMessage(payload, ORIGIN_OF_ADVISORY, NOW)])
    return outcome, dead_letters


@pytest.mark.parametrize(
    ("advisory", "code", "detail"),
    [
        (
            MAX_DELIVER,
            "max_deliver_exceeded",
            "sender-sms-00 received the message 20 times and never acknowledged it",
        ),
        (TERMINATED, "terminated", "sender-sms-00 terminated the message: no use"),
    ],
)
async def test_the_message_of_an_advisory_becomes_a_dead_letter(
    advisory: dict[str, object], code: str, detail: str
) -> None:
    outcome, dead_letters = await handle(json.dumps(advisory).encode(), Stored(SUBJECT, b"payload"))

    origin = Origin(stream="OUTBOUND", sequence=5, subject=SUBJECT, consumer="sender-sms-00")
    assert outcome == Done()
    assert dead_letters.published == [(b"payload", code, detail, origin)]


async def test_a_message_that_its_stream_no_longer_contains_is_recorded_nevertheless() -> None:
    _, dead_letters = await handle(json.dumps(MAX_DELIVER).encode(), None)

    [(payload, code, detail, origin)] = dead_letters.published
    assert (payload, code, origin.sequence) == (b"", "max_deliver_exceeded", 5)
    assert "no longer" in detail


async def test_without_an_answer_the_advisory_is_delivered_again() -> None:
    with pytest.raises(BusUnavailableError):
        await handle(json.dumps(MAX_DELIVER).encode(), BusUnavailableError("timeout"))


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b"{}", b'{"type": "x", "stream": "OUTBOUND"}'),
        json.dumps({**MAX_DELIVER, "stream": "SOMETHING"}).encode(),
        json.dumps({**MAX_DELIVER, "stream_seq": -1}).encode(),
        json.dumps({**MAX_DELIVER, "stream_seq": 2**64}).encode(),
    ],
)
async def test_an_unreadable_advisory_becomes_a_dead_letter_itself(payload: bytes) -> None:
    _, dead_letters = await handle(payload, None)

    [(kept, code, _, origin)] = dead_letters.published
    assert (kept, code, origin) == (payload, "invalid_event", ORIGIN_OF_ADVISORY)


async def test_a_delayed_step_that_a_later_one_has_replaced_is_ignored() -> None:
    outcome, dead_letters = await handle(json.dumps({**MAX_DELIVER, "stream": "DELAYED"}).encode(), None)

    assert outcome == Done()
    assert dead_letters.published == []
