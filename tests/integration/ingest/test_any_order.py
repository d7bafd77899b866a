"""Events in any order, repeated, in any batches, by two workers at once: the same rows and answers."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from services.gateway.archive import Archive
from services.gateway.queries import DeadLetterFilter, SuppressionFilter
from services.ingest.repository import Repository
from services.ingest.projection import rows_of
from shared.events import SuppressionState, Event
from shared.lifecycle import Status
from tests.integration.ingest.stories import (
    Dump,
    accepted,
    consent_changed,
    dead_letter,
    empty,
    meaning,
    message,
    receipt,
    received,
    status,
)
from tests.reports import reports, status_after

pytestmark = pytest.mark.integration

MESSAGES = [message(0), message(1), message(2, recipient="+18045550002")]
ANSWERS = [received(0), received(1, sender="+18045550002")]
OTHERS: list[Event] = [
    *(accepted(each) for each in MESSAGES),
    *(dead_letter(each) for each in MESSAGES),
    *ANSWERS,
    consent_changed(0, SuppressionState.OPTED_OUT),
    consent_changed(1, SuppressionState.OPTED_IN),
    consent_changed(2, SuppressionState.OPTED_OUT, ours=None),
]

Batch = tuple[int, list[Event]]
"""The number of the worker that stores it, and the events."""


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Event], list[Batch]]:
    """Draw events in the order in which they were told, and batches of them, each event at least once."""
    of_messages = [event for each in MESSAGES for event in draw(reports(each))]
    others = draw(st.lists(st.sampled_from(OTHERS), unique_by=lambda event: event.id))
    ids = {event.id for event in of_messages}
    events = [*of_messages, *(event for event in others if event.id not in ids)]
    repeated = draw(st.lists(st.sampled_from(events), max_size=8)) if events else []
    shuffled = draw(st.permutations([*events, *repeated]))
    cuts = sorted(draw(st.sets(st.integers(1, len(shuffled) + 1), max_size=6)))
    bounds = [0, *cuts, len(shuffled)]
    pieces = [shuffled[start:end] for start, end in pairwise(bounds)]
    return events, [(draw(st.integers(0, 1)), piece) for piece in pieces]


async def store(engine: AsyncEngine, events: Sequence[Event]) -> None:
    await Repository(engine).store([rows_of(event) for event in events])


async def store_by_two(engine: AsyncEngine, batches: Sequence[Batch]) -> None:
    async def work(number: int) -> None:
        for worker, events in batches:
            if worker == number:
                await store(engine, events)

    await asyncio.gather(work(0), work(1))


async def seen(engine: AsyncEngine) -> tuple[Dump, list[Any]]:
    """All that is stored and all that the API shows of it, but for the numbers of conversations."""
    archive = Archive(engine, timedelta(hours=4))
    ids = [each.id for each in MESSAGES] + [each.data.message.id for each in ANSWERS]
    found = [await archive.message(id_) for id_ in ids]
    shown = [each and each.model_dump(exclude={"conversation_id"}) for each in found]
    letters = await archive.dead_letters(DeadLetterFilter(), None, 10)
    suppressed = await archive.suppressions(SuppressionFilter(), None, 10)
    listed = [each.model_dump() for each in (*letters.items, *suppressed.items)]
    return await meaning(engine), [shown, listed]


@settings(
    deadline=None,
    max_examples=40,
    phases=[Phase.explicit, Phase.generate],  # each example takes too long to look for a smaller one
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
async def test_neither_order_nor_repetitions_nor_batches_nor_workers_matter(
    engine: AsyncEngine, data: st.DataObject
) -> None:
    events, batches = data.draw(histories())
    await empty(engine)
    for event in events:
        await store(engine, [event])
    expected = await seen(engine)
    for sent in MESSAGES:
        found = await Archive(engine, timedelta(hours=4)).message(sent.id)
        assert found is None or found.status == status_after(sent.id, events)

    await empty(engine)
    await store_by_two(engine, batches)

    assert await seen(engine) == expected


async def test_a_receipt_of_two_attempts_has_one_place_in_the_history_for_each(engine: AsyncEngine) -> None:
    sent = [status(MESSAGES[0].id, Status.SENT, attempt=attempt) for attempt in (1, 2, 3)]
    events: list[Event] = [accepted(MESSAGES[0]), *sent, receipt(MESSAGES[0].id)]
    for order in (events, events[::-1]):
        await empty(engine)
        for event in order:
            await store(engine, [event])
        found = await Archive(engine, timedelta(hours=4)).message(MESSAGES[0].id)
        assert found is not None
        assert [entry.attempt for entry in found.history if entry.source == "receipt"] == [1, 2, 3]
