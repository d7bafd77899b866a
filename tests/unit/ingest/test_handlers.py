"""What becomes of the deliveries of a batch, with stand-ins for the database and the dead letters."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.handlers import IngestHandler
from services.ingest.repository import Repository as RealRepository
from services.ingest.projection import Rows
from shared.bus.consumer import StreamMessage, Done, Outcome
from shared.bus.dead_letters import DeadLetterPublisher
from shared.errors import BadMessageError, BusUnavailableError, DatabaseUnavailableError
from shared.events import Origin
from tests.integration.ingest.stories import accepted, message

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Repository(RealRepository):
    """Stores by message, and refuses what it is told to refuse.

    Args:
        outages: how often it is not there before it works.
    """

    def __init__(
        self,
        refused: frozenset[str] = frozenset(),
        *,
        error: Exception | None = None,
        outages: int = 0,
    ) -> None:
        self.stored: list[str] = []
        self._refused = refused
        self._error = error or BadMessageError("not_storable", "no")
        self._outages = outages

    async def store(self, batch: Sequence[Rows]) -> None:
        if self._outages:
            self._outages -= 1
            raise DatabaseUnavailableError("away")
        bodies = [rows.message.body for rows in batch if rows.message]
        if self._refused.intersection(bodies):
            raise self._error
        self.stored += bodies


class Office(DeadLetterPublisher):
    def __init__(self, *, is_open: bool) -> None:
        self.buried: list[tuple[int, str]] = []
        self._is_open = is_open

    async def publish(
        self,
        payload: bytes,  # noqa: ARG002
        error: BadMessageError,
        origin: Origin,
        *,
        at: datetime,  # noqa: ARG002
    ) -> None:
        if not self._is_open:
            raise BusUnavailableError("away")
        self.buried.append((origin.sequence, error.code))


class Bench:
    """A handler with its surroundings."""

    def __init__(self, repository: Repository | None = None, *, office_is_open: bool = True) -> None:
        self.repository = repository or Repository()
        self.dead_letters = Office(is_open=office_is_open)
        self._handler = IngestHandler(self.repository, self.dead_letters)

    async def handle(self, payloads: Sequence[bytes]) -> Sequence[Outcome]:
        return await self._handler([delivery(number, payload) for number, payload in enumerate(payloads)])


def delivery(sequence: int, payload: bytes) -> StreamMessage:
    origin = Origin(stream="OUTBOUND", sequence=sequence, subject="outbound.sms.1.x", consumer="c")
    return StreamMessage(payload, origin, NOW)


def payload(body: str) -> bytes:
    return accepted(message(0, body=body)).encode()


PAYLOADS = [payload(str(number)) for number in range(40)]


@given(refused=st.sets(st.integers(0, 39)), unreadable=st.sets(st.integers(0, 39)))
async def test_exactly_the_bad_ones_are_given_up_and_all_others_stored(
    refused: set[int], unreadable: set[int]
) -> None:
    bench = Bench(Repository(frozenset(map(str, refused))))
    payloads = [b"{" if number in unreadable else PAYLOADS[number] for number in range(40)]

    outcomes = await bench.handle(payloads)

    assert outcomes == [Done()] * 40
    assert bench.repository.stored == [
        str(number) for number in range(40) if number not in refused | unreadable
    ]
    assert sorted(bench.dead_letters.buried) == [
        (number, "not_json" if number in unreadable else "not_storable")
        for number in sorted(refused | unreadable)
    ]


async def test_a_mistake_of_ours_holds_up_only_the_event_it_is_about() -> None:
    bench = Bench(Repository(frozenset({"2"}), error=KeyError("oops")))

    await bench.handle(PAYLOADS[:4])

    assert bench.repository.stored == ["0", "1", "3"]
    assert bench.dead_letters.buried == [(2, "handler_failed")]


async def test_a_bad_one_is_not_done_with_before_its_dead_letter_is_stored() -> None:
    bench = Bench(office_is_open=False)

    with pytest.raises(BusUnavailableError):
        await bench.handle([PAYLOADS[0], b"{"])


async def test_while_the_database_is_away_nothing_is_given_up() -> None:
    bench = Bench(Repository(outages=1))

    with pytest.raises(DatabaseUnavailableError):
        await bench.handle([*PAYLOADS[:3], b"{"])
    assert bench.dead_letters.buried == []

    assert await bench.handle(PAYLOADS[:3]) == [Done()] * 3
    assert bench.repository.stored == ["0", "1", "2"]


async def test_a_batch_of_nothing_but_bad_ones_never_asks_the_database() -> None:
    bench = Bench(Repository(outages=1_000))

    assert await bench.handle([b"{", b"[]"]) == [Done(), Done()]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not_json"),
        (b"\xff", "not_json"),
        (b"[]", "invalid_event"),
        (PAYLOADS[0].replace(b".v1", b".v2"), "unknown_type"),
    ],
)
async def test_why_an_event_cannot_be_read(payload: bytes, reason: str) -> None:
    bench = Bench()

    await bench.handle([payload])

    assert bench.dead_letters.buried == [(0, reason)]
