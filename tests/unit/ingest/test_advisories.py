"""What the server's advisories become."""

import json
from datetime import UTC, datetime

import pytest

from services.ingest.advisories import AdvisoryHandler
from shared.bus.consumer import StreamMessage, Done, Outcome
from shared.bus.dead_letters import DeadLetterPublisher
from shared.bus.streams import Stored
from shared.bus.streams import Streams as RealStreams
from shared.errors import BadMessageError, BusUnavailableError
from shared.events import Origin

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GIVEN_UP = {
    "type": "io.nats.jetstream.advisory.v1.max_deliver",
    "id": "x",
    "timestamp": "2026-03-01T12:00:00Z",
    "stream": "OUTBOUND",
    "consumer": "sender-sms-00",
    "stream_seq": 5,
    "deliveries": 20,
}
TERMINATED = {
    **GIVEN_UP,
    "type": "io.nats.jetstream.advisory.v1.terminated",
    "consumer_seq": 9,
    "reason": "no use",
}
ITS_OWN_ORIGIN = Origin(stream="ADVISORIES", sequence=1, subject="$JS.x", consumer="ingest-advisories")
SUBJECT = "outbound.sms.1.x"


class Streams(RealStreams):
    def __init__(self, answer: Stored | Exception | None) -> None:
        self._answer = answer

    async def message(self, stream: str, sequence: int) -> Stored | None:
        assert (stream, sequence) in {("OUTBOUND", 5), ("DELAYED", 5)}
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


class Office(DeadLetterPublisher):
    def __init__(self) -> None:
        self.buried: list[tuple[bytes, str, str, Origin]] = []

    async def publish(self, payload: bytes, error: BadMessageError, origin: Origin, *, at: datetime) -> None:  # noqa: ARG002
        self.buried.append((payload, error.code, str(error), origin))


async def sweep(payload: bytes, answer: Stored | Exception | None) -> tuple[Outcome, Office]:
    dead_letters = Office()
    [outcome] = await AdvisoryHandler(Streams(answer), dead_letters)([StreamMessage(payload, ITS_OWN_ORIGIN, NOW)])
    return outcome, dead_letters


@pytest.mark.parametrize(
    ("advisory", "code", "detail"),
    [
        (GIVEN_UP, "max_deliver_exceeded", "sender-sms-00 was given it 20 times and never finished"),
        (TERMINATED, "terminated", "sender-sms-00 terminated it: no use"),
    ],
)
async def test_the_message_it_is_about_becomes_a_dead_letter(
    advisory: dict[str, object], code: str, detail: str
) -> None:
    outcome, dead_letters = await sweep(json.dumps(advisory).encode(), Stored(SUBJECT, b"payload"))

    origin = Origin(stream="OUTBOUND", sequence=5, subject=SUBJECT, consumer="sender-sms-00")
    assert outcome == Done()
    assert dead_letters.buried == [(b"payload", code, detail, origin)]


async def test_a_message_that_is_gone_is_recorded_all_the_same() -> None:
    _, dead_letters = await sweep(json.dumps(GIVEN_UP).encode(), None)

    [(payload, code, detail, origin)] = dead_letters.buried
    assert (payload, code, origin.sequence) == (b"", "max_deliver_exceeded", 5)
    assert "no longer" in detail


async def test_without_an_answer_the_advisory_comes_again() -> None:
    with pytest.raises(BusUnavailableError):
        await sweep(json.dumps(GIVEN_UP).encode(), BusUnavailableError("timeout"))


@pytest.mark.parametrize("payload", [b"", b"{}", b'{"type": "x", "stream": "OUTBOUND"}'])
async def test_an_advisory_that_cannot_be_read_is_a_dead_letter_itself(payload: bytes) -> None:
    _, dead_letters = await sweep(payload, None)

    [(kept, code, _, origin)] = dead_letters.buried
    assert (kept, code, origin) == (payload, "invalid_event", ITS_OWN_ORIGIN)


async def test_a_delayed_step_that_a_newer_one_replaced_is_no_loss() -> None:
    outcome, dead_letters = await sweep(json.dumps({**GIVEN_UP, "stream": "DELAYED"}).encode(), None)

    assert outcome == Done()
    assert dead_letters.buried == []
