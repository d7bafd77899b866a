"""The latest change of a pair wins, whatever the order of arrival and however often it arrives."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bus.suppression_list import SuppressionList
from shared.bus.topology import Stream
from shared.channels import Channel
from shared.keywords import Keyword
from shared.message import IncomingMessage, Message
from shared.suppressions import SuppressionChange, SuppressionSource, SuppressionState, change_by_keyword
from tests import messages
from tests.events import received
from tests.jetstream import BusTo, JetStream, PublisherTo
from tests.messages import ALICE, BOB

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
OUT, IN = SuppressionState.OPTED_OUT, SuppressionState.OPTED_IN


def change(minute: int, state: SuppressionState, *, ours: str | None = ALICE) -> SuppressionChange:
    return SuppressionChange(
        channel=Channel.SMS,
        ours=ours,
        theirs=BOB,
        state=state,
        source=SuppressionSource.KEYWORD,
        occurred_at=NOON + timedelta(minutes=minute),
    )


@pytest.fixture
def server() -> JetStream:
    return JetStream(lambda: NOON)


def suppressions_on(server: JetStream) -> SuppressionList:
    return SuppressionList(BusTo(server), PublisherTo(server))


@pytest.fixture
def suppressions(server: JetStream) -> SuppressionList:
    return suppressions_on(server)


async def is_suppressed(suppressions: SuppressionList, message: Message | None = None) -> bool:
    return await suppressions.suppression_of(message or messages.message()) is not None


changes = st.lists(
    st.builds(
        change, st.integers(0, 5), st.sampled_from(SuppressionState), ours=st.sampled_from([ALICE, None])
    ),
    min_size=1,
    max_size=12,
)


@given(changes, st.integers(1, 4))
def test_the_latest_change_of_each_pair_counts(recorded: Sequence[SuppressionChange], writers: int) -> None:
    """Several processes record the changes at the same time, and each change twice."""

    async def record() -> tuple[set[str | None], list[SuppressionChange | None]]:
        server = JetStream(lambda: NOON)
        lists = [suppressions_on(server) for _ in range(writers)]
        twice = [*recorded, *reversed(recorded)]
        await asyncio.gather(
            *(lists[number % writers].record(each) for number, each in enumerate(twice)),
        )
        pairs = {each.ours for each in recorded}
        return pairs, [await lists[0].latest(Channel.SMS, ours, BOB) for ours in pairs]

    pairs, found = asyncio.run(record())
    for ours, latest in zip(pairs, found, strict=True):
        of_pair = [each for each in recorded if each.ours == ours]
        assert latest == max(of_pair, key=lambda each: (each.occurred_at, each.state is OUT))


@pytest.mark.parametrize(
    ("recorded", "suppressed"),
    [
        ([], False),
        ([change(1, OUT)], True),
        ([change(1, OUT), change(2, IN)], False),
        ([change(2, IN), change(1, OUT)], False),
        ([change(1, IN), change(1, OUT)], True),
        ([change(1, OUT, ours=None)], True),
        ([change(1, OUT, ours=None), change(2, IN)], True),
        ([change(1, OUT), change(2, IN, ours=None)], True),
        ([change(1, OUT, ours="+12015550000")], False),
    ],
)
async def test_a_message_is_suppressed_by_an_opt_out_from_its_sender_or_from_all(
    suppressions: SuppressionList, recorded: list[SuppressionChange], *, suppressed: bool
) -> None:
    for each in recorded:
        await suppressions.record(each)

    assert await is_suppressed(suppressions) is suppressed


async def test_the_spelling_of_an_email_address_does_not_matter(suppressions: SuppressionList) -> None:
    by_email = change(1, OUT, ours="ann@example.com").model_copy(
        update={"channel": Channel.EMAIL, "theirs": "ben@example.org"}
    )
    await suppressions.record(by_email)

    assert await is_suppressed(suppressions, messages.email(from_="Ann@Example.com", to="Ben@example.org"))
    assert not await is_suppressed(
        suppressions, messages.email(from_="Eve@Example.com", to="Ben@example.org")
    )


async def test_a_change_with_a_known_cause_is_recognised_at_any_time(suppressions: SuppressionList) -> None:
    await suppressions.record(change(1, OUT), cause="a message")
    await suppressions.record(change(2, IN), cause="another")
    await suppressions.record(change(3, OUT), cause="a message")

    assert not await is_suppressed(suppressions)


@pytest.mark.parametrize("state", [OUT, IN])
async def test_a_change_to_the_present_state_is_not_recorded_again(
    server: JetStream, suppressions: SuppressionList, state: SuppressionState
) -> None:
    for minute in range(3):
        await suppressions.record(change(minute, state), only_if_changed=True)

    assert len(server.messages(Stream.SUPPRESSIONS)) == (state is OUT)


def incoming(keyword: Keyword | None) -> IncomingMessage:
    return received().data.model_copy(update={"keyword": keyword})


@pytest.mark.parametrize(("keyword", "state"), [(Keyword.STOP, OUT), (Keyword.START, IN), (Keyword.YES, IN)])
def test_a_keyword_requests_a_change_for_the_pair_of_its_message(
    keyword: Keyword, state: SuppressionState
) -> None:
    message = incoming(keyword).message
    found = change_by_keyword(incoming(keyword))

    assert found is not None
    assert (found.ours, found.theirs, found.state) == (message.to_key, message.from_key, state)
    assert found.occurred_at == message.timestamp


@pytest.mark.parametrize("keyword", [None, Keyword.HELP])
def test_other_messages_request_no_change(keyword: Keyword | None) -> None:
    assert change_by_keyword(incoming(keyword)) is None
