"""The outcomes of a batch of events, with stubs of the database and the dead letters."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.bounces import BounceHandler
from services.ingest.handlers import EventHandler
from services.ingest.projection import Projection
from services.ingest.repository import Repository
from shared.bus.consumer import Done, HandBack, Outcome, StreamMessage
from shared.bus.dead_letters import DeadLetterPublisher
from shared.bus.suppression_list import SuppressionList
from shared.channels import Channel
from shared.dead_letters import Origin
from shared.errors import BadMessageError, BusUnavailableError, DatabaseUnavailableError
from shared.status import Status
from shared.suppressions import SuppressionChange, SuppressionSource
from tests.events import accepted, message, receipt

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class RepositoryStub(Repository):
    """Records the bodies of messages.

    Args:
        rejected: bodies that it rejects.
        error: the error that it raises for these.
        outages: how often it is not available before it works.
    """

    def __init__(
        self,
        rejected: frozenset[str] = frozenset(),
        *,
        error: Exception | None = None,
        outages: int = 0,
    ) -> None:
        self.stored: list[str] = []
        self.recipient: str | None = None
        self.recipients: list[str | None] = []
        self._rejected = rejected
        self._error = error or BadMessageError("not_storable", "no")
        self._outages = outages

    async def recipient_of(self, provider: str, provider_message_id: str) -> str | None:  # noqa: ARG002
        return self.recipients.pop(0) if self.recipients else self.recipient

    async def store(self, batch: Sequence[Projection]) -> None:
        if self._outages:
            self._outages -= 1
            raise DatabaseUnavailableError("down")
        bodies = [projection.message.body for projection in batch if projection.message]
        if self._rejected.intersection(bodies):
            raise self._error
        self.stored += bodies


class DeadLettersStub(DeadLetterPublisher):
    def __init__(self, *, is_available: bool) -> None:
        self.published: list[tuple[int, str]] = []
        self.payloads: dict[tuple[int, int], bytes] = {}
        self._is_available = is_available

    async def publish(
        self,
        payload: bytes,
        error: BadMessageError,
        origin: Origin,
        *,
        at: datetime,  # noqa: ARG002
        line: int = 0,
    ) -> None:
        if not self._is_available:
            raise BusUnavailableError("down")
        self.published.append((origin.sequence, error.code))
        self.payloads[origin.sequence, line] = payload


class SuppressionsStub(SuppressionList):
    def __init__(self, *, is_available: bool) -> None:
        self.recorded: list[SuppressionChange] = []
        self._is_available = is_available

    async def record(
        self,
        change: SuppressionChange,
        *,
        only_if_changed: bool = False,  # noqa: ARG002
    ) -> SuppressionChange:
        if not self._is_available:
            raise BusUnavailableError("down")
        self.recorded.append(change)
        return change


class Harness:
    """A handler with its stubs."""

    def __init__(self, repository: RepositoryStub | None = None, *, bus_is_available: bool = True) -> None:
        self.repository = repository or RepositoryStub()
        self.dead_letters = DeadLettersStub(is_available=bus_is_available)
        self.suppressions = SuppressionsStub(is_available=bus_is_available)
        self.seconds = 0.0
        bounces = BounceHandler(self.repository, self.suppressions, lambda: self.seconds)
        self._handler = EventHandler(self.repository, self.dead_letters, bounces, lambda: None)

    async def handle(self, payloads: Sequence[bytes], *, deliveries: int = 1) -> Sequence[Outcome]:
        return await self._handler(
            [stream_message(number, payload, deliveries) for number, payload in enumerate(payloads)]
        )


def stream_message(sequence: int, payload: bytes, deliveries: int = 1) -> StreamMessage:
    origin = Origin(stream="OUTBOUND", sequence=sequence, subject="outbound.sms.1.x", consumer="c")
    return StreamMessage(payload, origin, NOW, deliveries=deliveries)


def payload(body: str) -> bytes:
    return accepted(message(0, body=body)).encode()


PAYLOADS = [payload(str(number)) for number in range(40)]


@given(rejected=st.sets(st.integers(0, 39)), unreadable=st.sets(st.integers(0, 39)))
async def test_exactly_the_bad_events_are_dead_lettered_and_all_others_are_stored(
    rejected: set[int], unreadable: set[int]
) -> None:
    harness = Harness(RepositoryStub(frozenset(map(str, rejected))))
    payloads = [b"{" if number in unreadable else PAYLOADS[number] for number in range(40)]

    outcomes = await harness.handle(payloads)

    assert outcomes == [Done()] * 40
    assert harness.repository.stored == [
        str(number) for number in range(40) if number not in rejected | unreadable
    ]
    assert sorted(harness.dead_letters.published) == [
        (number, "not_json" if number in unreadable else "not_storable")
        for number in sorted(rejected | unreadable)
    ]


async def test_each_line_of_a_message_is_stored_or_dead_lettered_on_its_own() -> None:
    harness = Harness(RepositoryStub(frozenset({"2"})))
    bad = b'{"type":"nonsense"}'

    await harness.handle([PAYLOADS[0], b"\n".join([PAYLOADS[1], bad, PAYLOADS[2], PAYLOADS[3]])])

    assert harness.repository.stored == ["0", "1", "3"]
    assert harness.dead_letters.payloads == {(1, 1): bad, (1, 2): PAYLOADS[2]}


async def test_a_message_with_more_lines_than_a_transaction_takes_is_stored_completely() -> None:
    harness = Harness()

    await harness.handle([b"\n".join(PAYLOADS * 30)])

    assert harness.repository.stored == [str(number) for number in range(40)] * 30


async def test_a_bug_of_ours_affects_only_the_event_that_triggers_it() -> None:
    harness = Harness(RepositoryStub(frozenset({"2"}), error=KeyError("oops")))

    await harness.handle(PAYLOADS[:4])

    assert harness.repository.stored == ["0", "1", "3"]
    assert harness.dead_letters.published == [(2, "handler_failed")]


async def test_a_bad_event_is_not_acknowledged_before_its_dead_letter_is_stored() -> None:
    harness = Harness(bus_is_available=False)

    with pytest.raises(BusUnavailableError):
        await harness.handle([PAYLOADS[0], b"{"])


async def test_while_the_database_is_down_nothing_is_dead_lettered() -> None:
    harness = Harness(RepositoryStub(outages=1))

    with pytest.raises(DatabaseUnavailableError):
        await harness.handle([*PAYLOADS[:3], b"{"])
    assert harness.dead_letters.published == []

    assert await harness.handle(PAYLOADS[:3]) == [Done()] * 3
    assert harness.repository.stored == ["0", "1", "2"]


async def test_a_batch_of_unreadable_events_needs_no_database() -> None:
    harness = Harness(RepositoryStub(outages=1_000))

    assert await harness.handle([b"{", b"[]"]) == [Done(), Done()]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not_json"),
        (b"\xff", "not_json"),
        (b"[]", "invalid_event"),
        (PAYLOADS[0].replace(b".v1", b".v2"), "unknown_type"),
    ],
)
async def test_a_dead_letter_has_the_reason_why_its_event_is_unreadable(payload: bytes, reason: str) -> None:
    harness = Harness()

    await harness.handle([payload])

    assert harness.dead_letters.published == [(0, reason)]


def bounce() -> bytes:
    event = receipt(message(0).id, Status.UNDELIVERED)
    data = event.data.model_copy(update={"channel": Channel.EMAIL, "is_bounce": True})
    return event.model_copy(update={"data": data}).encode()


async def test_a_bounce_suppresses_the_recipient_of_its_message() -> None:
    harness = Harness()
    harness.repository.recipient = "Ann@Example.com"

    assert await harness.handle([PAYLOADS[0], bounce()]) == [Done(), Done()]
    [change] = harness.suppressions.recorded
    assert (change.theirs, change.source) == ("ann@example.com", SuppressionSource.BOUNCE)


async def test_a_bounce_that_is_read_before_its_message_is_read_again() -> None:
    harness = Harness()
    found = [await harness.handle([PAYLOADS[0], bounce()], deliveries=number) for number in (1, 2, 9, 12)]

    delays = [timedelta(seconds=seconds) for seconds in (2, 4, 300)]
    assert found == [*([Done(), HandBack(delay)] for delay in delays), [Done(), Done()]]
    assert harness.suppressions.recorded == []


async def test_only_so_many_bounces_of_unknown_messages_wait_to_be_read_again() -> None:
    harness = Harness()
    found = await harness.handle([bounce()] * 1_000)
    assert sum(isinstance(outcome, HandBack) for outcome in found) == 550

    assert await harness.handle([bounce()]) == [Done()]
    harness.seconds = 2
    assert await harness.handle([bounce()]) == [HandBack(timedelta(seconds=2))]


async def test_a_bounce_that_cannot_be_recorded_is_read_again_however_often() -> None:
    harness = Harness(bus_is_available=False)
    harness.repository.recipient = "ann@example.com"

    [outcome] = await harness.handle([bounce()], deliveries=20)
    assert isinstance(outcome, HandBack)


async def test_other_receipts_suppress_nobody() -> None:
    harness = Harness()
    harness.repository.recipient = "ann@example.com"

    assert await harness.handle([receipt(message(0).id, Status.UNDELIVERED).encode()]) == [Done()]
    assert harness.suppressions.recorded == []


@pytest.mark.parametrize("known_first", [True, False])
async def test_a_message_with_several_bounces_is_read_again_for_any_of_them(*, known_first: bool) -> None:
    harness = Harness()
    known, unknown = "ann@example.com", None
    harness.repository.recipients = [known, unknown] if known_first else [unknown, known]

    [outcome] = await harness.handle([b"\n".join([bounce(), bounce()])])
    assert isinstance(outcome, HandBack)
    assert [change.theirs for change in harness.suppressions.recorded] == ["ann@example.com"]
