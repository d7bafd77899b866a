"""Whatever order changes of consent are heard of in, and however often, the latest one holds."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bus.topology import Stream
from shared.channels import Channel
from shared.suppressions import SuppressionList
from shared.events import SuppressionChange, SuppressionSource, SuppressionState, Message
from tests import messages
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


def consents_in(server: JetStream) -> SuppressionList:
    return SuppressionList(BusTo(server), PublisherTo(server))


@pytest.fixture
def suppressions(server: JetStream) -> SuppressionList:
    return consents_in(server)


async def is_suppressed(suppressions: SuppressionList, message: Message | None = None) -> bool:
    return await suppressions.suppression_of(message or messages.message()) is not None


changes = st.lists(
    st.builds(change, st.integers(0, 5), st.sampled_from(SuppressionState), ours=st.sampled_from([ALICE, None])),
    min_size=1,
    max_size=12,
)


@given(changes, st.integers(1, 4))
def test_the_latest_change_of_each_pair_holds(heard: Sequence[SuppressionChange], writers: int) -> None:
    """Several processes hear of them at the same time, and of each twice."""

    async def hear() -> tuple[set[str | None], list[SuppressionChange | None]]:
        server = JetStream(lambda: NOON)
        crowd = [consents_in(server) for _ in range(writers)]
        twice = [*heard, *reversed(heard)]
        await asyncio.gather(
            *(crowd[number % writers].record(each) for number, each in enumerate(twice)),
        )
        pairs = {each.ours for each in heard}
        return pairs, [await crowd[0].latest(Channel.SMS, ours, BOB) for ours in pairs]

    pairs, found = asyncio.run(hear())
    for ours, latest in zip(pairs, found, strict=True):
        of_pair = [each for each in heard if each.ours == ours]
        assert latest == max(of_pair, key=lambda each: (each.occurred_at, each.state is OUT))


@pytest.mark.parametrize(
    ("told", "suppressed"),
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
async def test_who_gets_nothing(suppressions: SuppressionList, told: list[SuppressionChange], *, suppressed: bool) -> None:
    for each in told:
        await suppressions.record(each)

    assert await is_suppressed(suppressions) is suppressed


async def test_an_address_of_mail_is_one_however_it_is_spelt(suppressions: SuppressionList) -> None:
    of_mail = change(1, OUT, ours="ann@example.com").model_copy(
        update={"channel": Channel.EMAIL, "theirs": "ben@example.org"}
    )
    await suppressions.record(of_mail)

    assert await is_suppressed(suppressions, messages.email(from_="Ann@Example.com", to="Ben@example.org"))
    assert not await is_suppressed(suppressions, messages.email(from_="Eve@Example.com", to="Ben@example.org"))


async def test_what_is_heard_again_without_a_time_of_its_own_is_recognised(suppressions: SuppressionList) -> None:
    await suppressions.record(change(1, OUT), cause="a message")
    await suppressions.record(change(2, IN), cause="another")
    await suppressions.record(change(3, OUT), cause="a message")

    assert not await is_suppressed(suppressions)


@pytest.mark.parametrize("state", [OUT, IN])
async def test_what_asks_for_what_is_so_already_is_no_change(
    server: JetStream, suppressions: SuppressionList, state: SuppressionState
) -> None:
    for minute in range(3):
        await suppressions.record(change(minute, state), unless_so=True)

    assert len(server.messages(Stream.SUPPRESSIONS)) == (state is OUT)
