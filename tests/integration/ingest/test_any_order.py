"""Events in any order, repeated, in any batches and from two workers lead to the same rows and responses."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine
from tenacity import retry, retry_if_exception_message

from services.gateway.dead_letters.queries import DeadLetterQueries
from services.gateway.dead_letters.schemas import DeadLetterFilter
from services.gateway.messages.queries import MessageQueries
from services.gateway.messages.schemas import MessageWithHistory
from services.gateway.suppressions.queries import SuppressionQueries
from services.ingest.projection import project
from services.ingest.repository import Repository
from shared.db.reader import Reader
from shared.events import Event
from shared.ids import MessageId
from shared.message import StatusReport
from shared.resources.dead_letters import show_dead_letter
from shared.resources.suppressions import show_suppression
from shared.status import Status
from shared.suppressions import SuppressionState
from tests.events import (
    accepted,
    dead_letter,
    message,
    receipt,
    received,
    status_changed,
    suppression_changed,
)
from tests.integration.ingest.database import Dump, contents, empty, states_and_decisive_reports
from tests.reports import reports, status_after

pytestmark = pytest.mark.integration

MESSAGES = [message(0), message(1), message(2, to="+18045550002")]
REPLIES = [received(0), received(1, from_="+18045550002")]
OTHERS: list[Event[Any]] = [
    *(accepted(each) for each in MESSAGES),
    *(dead_letter(each) for each in MESSAGES),
    *REPLIES,
    suppression_changed(0, SuppressionState.OPTED_OUT),
    suppression_changed(1, SuppressionState.OPTED_IN),
    suppression_changed(2, SuppressionState.OPTED_OUT, ours=None),
]

ENDS = {Status.SENT, Status.FAILED, Status.EXPIRED}

Batch = tuple[int, list[Event[Any]]]
"""The number of the worker that stores the batch, and the events."""


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Event[Any]], list[Batch]]:
    """Draw events in the order in which they are published, and batches with each event at least once."""
    of_messages = [event for each in MESSAGES for event in without_late_expiry(draw(reports(each)))]
    others = draw(st.lists(st.sampled_from(OTHERS), unique_by=lambda event: event.id))
    ids = {event.id for event in of_messages}
    events = [*of_messages, *(event for event in others if event.id not in ids)]
    repeated = draw(st.lists(st.sampled_from(events), max_size=8)) if events else []
    shuffled = draw(st.permutations([*events, *repeated]))
    cuts = sorted(draw(st.sets(st.integers(1, len(shuffled) + 1), max_size=6)))
    bounds = [0, *cuts, len(shuffled)]
    pieces = [shuffled[start:end] for start, end in pairwise(bounds)]
    return events, [(draw(st.integers(0, 1)), piece) for piece in pieces]


def without_late_expiry(events: list[Event[Any]]) -> list[Event[Any]]:
    """Exclude expiry reports on messages that have ended, which are stored only if they arrive first."""
    ends = [weight_of(event) for event in events if status_of(event) in ENDS]
    return [
        event for event in events if status_of(event) is not Status.EXPIRED or weight_of(event) == max(ends)
    ]


def status_of(event: Event[Any]) -> Status | None:
    return event.data.status if isinstance(event.data, StatusReport) else None


def weight_of(event: Event[Any]) -> tuple[int, int, int]:
    report = event.data
    return report.generation, report.precedence, report.attempt


async def store(engine: AsyncEngine, events: Sequence[Event[Any]]) -> None:
    await Repository(engine).store([project(event) for event in events])


async def store_with_two_workers(engine: AsyncEngine, batches: Sequence[Batch]) -> None:
    # A batch of ingest is of one stream. One with events of several may end in a deadlock, and is repeated.
    @retry(retry=retry_if_exception_message(match="deadlock detected"))
    async def store_again(events: Sequence[Event[Any]]) -> None:
        await store(engine, events)

    async def work(number: int) -> None:
        for worker, events in batches:
            if worker == number:
                await store_again(events)

    await asyncio.gather(work(0), work(1))


async def get_message(engine: AsyncEngine, id_: MessageId) -> MessageWithHistory | None:
    return await MessageQueries(Reader(engine), timedelta(hours=4)).get(id_)


async def stored_and_shown(engine: AsyncEngine) -> tuple[Dump, list[Any]]:
    """Return all rows, and all that the API shows of them except the numbers of conversations."""
    ids = [each.id for each in MESSAGES] + [each.data.message.id for each in REPLIES]
    found = [await get_message(engine, id_) for id_ in ids]
    shown = [each and each.model_dump(exclude={"conversation_id"}) for each in found]
    dead_letters = await DeadLetterQueries(Reader(engine)).list(DeadLetterFilter(), None, 10)
    suppressions = await SuppressionQueries(Reader(engine)).list(None, None, None, 10)
    lists = [*map(show_dead_letter, dead_letters.rows), *map(show_suppression, suppressions)]
    return await contents(engine), [shown, [each.model_dump() for each in lists]]


@settings(
    deadline=None,
    max_examples=40,
    phases=[Phase.explicit, Phase.generate],  # each example takes too long to look for a smaller one
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
async def test_order_repetitions_batches_and_workers_do_not_matter(
    engine: AsyncEngine, data: st.DataObject
) -> None:
    events, batches = data.draw(histories())
    await empty(engine)
    for event in events:
        await store(engine, [event])
    expected = await stored_and_shown(engine)
    for each in MESSAGES:
        found = await get_message(engine, each.id)
        assert found is None or found.status == status_after(each.id, events)

    await empty(engine)
    await store_with_two_workers(engine, batches)

    assert await stored_and_shown(engine) == expected
    stored, decisive = await states_and_decisive_reports(engine)
    assert stored == decisive


async def test_a_receipt_for_several_attempts_appears_in_the_history_once_for_each(
    engine: AsyncEngine,
) -> None:
    id_ = MESSAGES[0].id
    sent = [status_changed(id_, Status.SENT, attempt=attempt) for attempt in (1, 2, 3)]
    events: list[Event[Any]] = [accepted(MESSAGES[0]), *sent, receipt(id_)]
    for order in (events, events[::-1]):
        await empty(engine)
        for event in order:
            await store(engine, [event])
        found = await get_message(engine, id_)
        assert found is not None
        assert [entry.attempt for entry in found.history if entry.source == "receipt"] == [1, 2, 3]
