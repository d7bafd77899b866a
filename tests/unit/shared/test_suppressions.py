"""The latest change of a pair wins, whatever the order of arrival and however often it arrives."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bus.publisher import Outgoing
from shared.bus.suppression_list import SuppressionList
from shared.bus.topology import Stream, suppression_subject
from shared.channels import Channel
from shared.events import suppression_changed
from shared.ids import suppression_key
from shared.keywords import Keyword
from shared.message import IncomingMessage, Message
from shared.suppressions import (
    SuppressionChange,
    SuppressionSource,
    SuppressionState,
    changes_by_keyword,
    latest_changes,
)
from tests import messages
from tests.events import received
from tests.jetstream import BusTo, JetStream, PublisherTo
from tests.messages import ALICE, BOB

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SUBJECT = suppression_subject(Channel.SMS, suppression_key(Channel.SMS, ALICE, BOB))
OUT, IN = SuppressionState.OPTED_OUT, SuppressionState.OPTED_IN


def change(
    minute: float, state: SuppressionState, *, ours: str | None = ALICE, cause: str | None = None
) -> SuppressionChange:
    return SuppressionChange(
        channel=Channel.SMS,
        ours=ours,
        theirs=BOB,
        state=state,
        source=SuppressionSource.KEYWORD,
        cause=cause,
        occurred_at=NOON + timedelta(minutes=minute),
    )


@pytest.fixture
def server() -> JetStream:
    return JetStream(lambda: NOON)


@pytest.fixture
def suppressions_for_ever() -> SuppressionList:
    """A list on a server that forgets the ids of messages: a day passes between two of them."""
    days = count()
    return suppressions_on(JetStream(lambda: NOON + timedelta(days=next(days))))


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


async def test_a_change_with_a_known_cause_is_recognised_at_any_time(
    suppressions_for_ever: SuppressionList,
) -> None:
    for minute, state, cause in ((1, OUT, "a"), (2, IN, "b"), (3, OUT, "a"), (4, OUT, "c")):
        await suppressions_for_ever.record(change(minute, state, cause=cause))
    assert await is_suppressed(suppressions_for_ever)

    await suppressions_for_ever.record(change(5, IN, cause="b"))
    assert await is_suppressed(suppressions_for_ever)


async def test_a_cause_that_changed_nothing_does_not_change_anything_later(
    suppressions_for_ever: SuppressionList,
) -> None:
    answer = change(1, IN, cause="yes")
    await suppressions_for_ever.record(answer, only_if_changed=True)
    await suppressions_for_ever.record(change(2, OUT))
    await suppressions_for_ever.record(change(3, IN, cause="yes"), only_if_changed=True)
    assert await is_suppressed(suppressions_for_ever)

    await suppressions_for_ever.record(change(4, IN, cause="another"), only_if_changed=True)
    assert not await is_suppressed(suppressions_for_ever)


async def test_a_change_with_a_cause_counts_from_its_arrival(suppressions_for_ever: SuppressionList) -> None:
    await suppressions_for_ever.record(change(9, IN, cause="start"))
    await suppressions_for_ever.record(change(1, OUT, cause="stop"))
    assert await is_suppressed(suppressions_for_ever)

    await suppressions_for_ever.record(change(20, IN, cause="start"))
    assert await is_suppressed(suppressions_for_ever)
    await suppressions_for_ever.record(change(1, IN))
    assert await is_suppressed(suppressions_for_ever)


async def test_an_opt_out_from_a_group_suppresses_the_messages_that_are_sent_in_it(server: JetStream) -> None:
    in_group = SuppressionList(BusTo(server), PublisherTo(server), {"twilio": "twilio:MG1"})
    await in_group.record(change(1, OUT, ours="twilio:MG1"))

    assert await is_suppressed(in_group)
    assert not await is_suppressed(suppressions_on(server))
    await in_group.record(change(2, IN, ours="twilio:MG1"))
    assert not await is_suppressed(in_group)


@given(changes)
def test_the_latest_changes_have_the_same_effect_as_all(recorded: Sequence[SuppressionChange]) -> None:
    latest = latest_changes(recorded)

    assert len({each.key for each in latest}) == len(latest)
    for each in latest:
        assert not any(other.supersedes(each) for other in recorded if other.key == each.key)
    assert {each.key for each in recorded} == {each.key for each in latest}


async def test_a_pair_with_very_many_changes_is_not_opted_in_by_one_that_may_be_a_repetition(
    server: JetStream, suppressions: SuppressionList
) -> None:
    for second in range(1_001):
        state = OUT if second % 2 == 0 else IN
        event = suppression_changed(change(second / 60, state, cause=str(second)))
        server.store(Stream.SUPPRESSIONS, Outgoing(SUBJECT, event.id, event.encode()))

    await suppressions.record(change(20, IN, cause="new"))
    assert await is_suppressed(suppressions)
    await suppressions.record(change(21, IN))
    assert not await is_suppressed(suppressions)
    await suppressions.record(change(22, OUT, cause="newer"))
    assert await is_suppressed(suppressions)


async def test_a_change_that_cannot_be_read_counts_as_an_opt_out(
    server: JetStream, suppressions: SuppressionList
) -> None:
    later_version = suppression_changed(change(1, IN)).encode().replace(b"changed.v1", b"changed.v2")
    for payload in (b"\xff", b"", b"{}", b"null", later_version):
        server.store(Stream.SUPPRESSIONS, Outgoing(SUBJECT, None, payload))
        found = await suppressions.latest(Channel.SMS, ALICE, BOB)
        assert found is not None
        assert (found.state, found.occurred_at) == (OUT, NOON)
        assert found.source is SuppressionSource.UNREADABLE
        assert await is_suppressed(suppressions)

        await suppressions.record(change(-1, IN))
        assert await is_suppressed(suppressions)
        again = change(1, OUT, cause=f"again {payload!r}")
        await suppressions.record(again, only_if_changed=True)
        assert await suppressions.latest(Channel.SMS, ALICE, BOB) == again
        await suppressions.record(change(2, IN, cause=str(payload)))
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
    [found] = changes_by_keyword(incoming(keyword))

    assert (found.ours, found.theirs, found.state) == (message.to_key, message.from_key, state)
    assert found.occurred_at == message.created_at


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_keyword_counts_when_it_arrives_whatever_the_time_of_its_message(written_at: datetime) -> None:
    stop = incoming(Keyword.STOP)
    message = stop.message.model_copy(update={"timestamp": written_at})
    [found] = changes_by_keyword(stop.model_copy(update={"message": message}))

    assert found.occurred_at == message.created_at


@pytest.mark.parametrize("keyword", [None, Keyword.HELP])
def test_other_messages_request_no_change(keyword: Keyword | None) -> None:
    assert changes_by_keyword(incoming(keyword)) == []
