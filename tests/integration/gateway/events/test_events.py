"""`GET /api/events`, as pages and as streams."""

import asyncio
import random
from typing import Any

import httpx
import pytest
from nats.js import JetStreamContext

from services.gateway.events.streaming import MAX_STREAMS_PER_CALLER
from shared.bus.topology import Stream
from shared.suppressions import SuppressionState
from tests.events import accepted, delivered, message, of_all_kinds, received, suppression_changed
from tests.integration.gateway.events.conftest import Gateway
from tests.integration.gateway.events.streams import opened
from tests.waiting import eventually

pytestmark = pytest.mark.integration

CUTS = 1_000


async def page(gateway: Gateway, query: str = "") -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client:
        response = await client.get(f"/api/events?{query}")
    return {"status": response.status_code, **response.json()}


async def all_events(gateway: Gateway) -> list[dict[str, Any]]:
    found = await page(gateway, "limit=200")
    assert not found["has_more"]
    items: list[dict[str, Any]] = found["items"]
    return items


async def test_pages_continue_after_the_last_event(listening: Gateway) -> None:
    await listening.notify(*of_all_kinds())
    expected = await all_events(listening)
    found: list[dict[str, Any]] = []
    cursor, has_more = "0", True
    while has_more:
        part = await page(listening, f"after={cursor}&limit=3")
        found += part["items"]
        cursor, has_more = part["next_cursor"], part["has_more"]
    assert found == expected
    assert [each["sequence"] for each in found] == [*range(1, len(found) + 1)]
    assert (await page(listening, f"after={cursor}"))["items"] == []
    await listening.notify(received(9))
    assert [each["type"] for each in (await page(listening, f"after={cursor}"))["items"]] == [
        "message.received"
    ]


async def test_a_stream_has_the_same_events_as_the_pages(listening: Gateway) -> None:
    await listening.notify(*of_all_kinds())
    expected = await all_events(listening)
    async with opened(listening.port, "?after=0") as stream:
        assert await stream.take(len(expected)) == expected


async def test_a_stream_begins_with_the_next_event(listening: Gateway) -> None:
    await listening.notify(received(0))
    async with opened(listening.port) as stream:
        await listening.notify(received(1))
        [event] = await stream.take(1)
        assert event["data"]["provider_message_id"] == "in-1"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("type=message.sent&type=message.delivered", ["message.sent", "message.delivered"]),
        ("channel=sms&type=recipient.opted_out", ["recipient.opted_out"] * 2),
        ("channel=email", []),
        ("address=%2B12016660002", ["recipient.opted_out", "conversation.created", "message.accepted"]),
    ],
)
async def test_events_are_filtered(listening: Gateway, query: str, expected: list[str]) -> None:
    await listening.notify(
        *delivered(0),
        suppression_changed(0, SuppressionState.OPTED_OUT),
        suppression_changed(1, SuppressionState.OPTED_OUT, ours=None),
        accepted(message(1, from_="+12016660002")),
    )
    found = await page(listening, query)
    assert [each["type"] for each in found["items"]] == expected
    if expected:
        async with opened(listening.port, f"?after=0&{query}") as stream:
            assert await stream.take(len(expected)) == found["items"]


async def test_a_position_without_its_events_is_refused(
    listening: Gateway, jetstream: JetStreamContext
) -> None:
    await listening.notify(*delivered(0))
    newest = (await all_events(listening))[-1]["sequence"]
    await jetstream.purge_stream(Stream.NOTIFICATIONS)
    for after, status in ((0, 410), (newest - 1, 410), (newest, 200), (newest + 1, 410)):
        found = await page(listening, f"after={after}")
        assert (found["status"], found.get("code")) == (status, "events_expired" if status == 410 else None)
        async with opened(listening.port, Last_Event_ID=str(after)) as stream:
            assert stream.status == status
    async with opened(listening.port, Last_Event_ID="abc") as stream:
        assert stream.status == 422


async def test_streams_are_limited_and_do_not_count_as_requests_in_progress(listening: Gateway) -> None:
    streams = [opened(listening.port) for _ in range(MAX_STREAMS_PER_CALLER)]
    assert {(await each.__aenter__()).status for each in streams} == {200}
    async with opened(listening.port) as stream:
        assert stream.status == 429

    async def nothing_is_in_progress() -> bool:
        return listening.admission._reads.in_progress == 0  # noqa: SLF001

    await eventually(nothing_is_in_progress)
    for each in streams:
        await each.__aexit__(None, None, None)

    async def is_accepted() -> bool:
        async with opened(listening.port) as stream:
            return stream.status == 200

    await eventually(is_accepted)
    await eventually(nothing_is_in_progress)


async def test_a_stream_that_stops_ends_with_a_complete_response(listening: Gateway) -> None:
    async with opened(listening.port, "?after=0") as stream:
        await listening.notify(received())
        await stream.take(2)
        listening.app.state.is_stopping = True
        assert await stream.take(1) == []


@pytest.mark.timeout(300)
async def test_no_event_is_lost_or_repeated_when_the_connection_is_cut(listening: Gateway) -> None:
    randomness, is_done = random.Random(7), False

    async def happen() -> None:
        number = 0
        while not is_done:
            await listening.notify(*(received(number + each) for each in range(10)))
            number += 10

    happening = asyncio.create_task(happen())
    found: list[dict[str, Any]] = []
    for _ in range(CUTS):
        after = str(found[-1]["sequence"]) if found else "0"
        async with opened(listening.port, Last_Event_ID=after) as stream:
            found += await stream.take_bytes(randomness.randrange(3_000))
    is_done = True
    await happening
    assert len(found) > CUTS / 2
    assert found == await all_until(listening, found[-1]["sequence"])


async def all_until(gateway: Gateway, last: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while len(found) < last:
        response = await page(gateway, f"after={len(found)}&limit=200")
        if response["status"] != 503:  # as on a loaded machine
            found += response["items"]
    return found[:last]
