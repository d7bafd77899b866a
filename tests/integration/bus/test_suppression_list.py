"""A message changes the suppression list once, however long ago the server has forgotten its id."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from nats.js import JetStreamContext

from shared.bus.client import Bus
from shared.bus.key_value import KeyValueStore
from shared.bus.publisher import Publisher
from shared.bus.suppression_list import SuppressionList
from shared.bus.topology import Stream
from shared.channels import Channel
from shared.suppressions import SuppressionChange, SuppressionSource, SuppressionState
from tests import messages
from tests.waiting import eventually

OUT, IN = SuppressionState.OPTED_OUT, SuppressionState.OPTED_IN


def change(minute: int, state: SuppressionState, cause: str) -> SuppressionChange:
    return SuppressionChange(
        channel=Channel.SMS,
        ours=messages.ALICE,
        theirs=messages.BOB,
        state=state,
        source=SuppressionSource.KEYWORD,
        cause=cause,
        occurred_at=messages.now() + timedelta(minutes=minute),
    )


@pytest.fixture
async def suppressions(bus: Bus, publisher: Publisher, jetstream: JetStreamContext) -> SuppressionList:
    """Return the list on a server that remembers the ids of messages for a tenth of a second."""
    config = (await jetstream.stream_info(Stream.SUPPRESSIONS)).config
    config.duplicate_window = 0.1
    await jetstream.update_stream(config)
    return SuppressionList(bus, publisher)


async def until_ids_are_forgotten(jetstream: JetStreamContext) -> None:
    """Wait until the server has forgotten an id that is newer than all others."""
    headers = {"Nats-Msg-Id": uuid4().hex}

    async def is_forgotten() -> bool:
        return not (await jetstream.publish("suppression.email.other", b"", headers=headers)).duplicate

    assert await is_forgotten()
    await eventually(is_forgotten)


async def test_a_repeated_start_does_not_undo_a_later_stop(
    suppressions: SuppressionList, jetstream: JetStreamContext
) -> None:
    for minute, state, cause in ((0, OUT, "stop"), (1, IN, "start"), (2, OUT, "stop again")):
        await suppressions.record(change(minute, state, cause))
    await until_ids_are_forgotten(jetstream)

    for minute in (3, 4):
        await suppressions.record(change(minute, IN, "start"))
    suppression = await suppressions.suppression_of(messages.message())
    assert suppression is not None
    assert suppression.cause == "stop again"

    await suppressions.record(change(5, IN, "start again"))
    assert await suppressions.suppression_of(messages.message()) is None


async def test_a_yes_that_was_an_ordinary_answer_does_not_undo_a_later_stop(
    suppressions: SuppressionList, jetstream: JetStreamContext
) -> None:
    await suppressions.record(change(0, IN, "yes"), only_if_changed=True)
    await suppressions.record(change(1, OUT, "stop"))
    await until_ids_are_forgotten(jetstream)

    await suppressions.record(change(2, IN, "yes"), only_if_changed=True)
    assert await suppressions.suppression_of(messages.message()) is not None


async def test_an_old_start_that_is_replayed_does_not_undo_a_later_stop(
    suppressions: SuppressionList,
) -> None:
    await suppressions.record(change(5, OUT, "stop"))
    applied = await suppressions.record(change(0, IN, "start"))
    assert applied.state is OUT

    # The clocks of two gateways may differ, and an old STOP is better than none.
    assert (await suppressions.record(change(5, IN, "start again"))).state is IN
    assert (await suppressions.record(change(0, OUT, "old stop"))).state is OUT


async def test_many_changes_of_a_pair_at_the_same_time_do_not_conflict(
    suppressions: SuppressionList, monkeypatch: pytest.MonkeyPatch, jetstream: JetStreamContext
) -> None:
    attempts = 0
    put = KeyValueStore.put

    async def count(*args: Any, **options: Any) -> object:  # noqa: ANN401 - those of `put`
        nonlocal attempts
        attempts += 1
        return await put(*args, **options)

    monkeypatch.setattr(KeyValueStore, "put", count)
    changes = [change(0, (OUT, IN)[number % 2], str(number)) for number in range(40)]
    await asyncio.gather(*map(suppressions.record, changes))
    assert attempts == 40
    assert (await jetstream.stream_info(Stream.SUPPRESSIONS)).state.messages == 40
