"""Conversations and their messages, as they are stored."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest

from shared.channels import Direction
from shared.status import Status
from tests.integration.gateway.rows import Rows, key_of, minutes
from tests.messages import ALICE, BOB

pytestmark = pytest.mark.integration

CAROL = "+12016665678"
ANN, BEN = "ann@example.com", "ben+tag@example.org"
ERROR = {"code": "http_500", "detail": "no", "attempt": 1, "status_code": 500, "at": "2024-11-01T14:00:00Z"}


async def get(gateway: httpx.AsyncClient, path: str) -> Any:  # noqa: ANN401 - JSON
    response = await gateway.get(path)
    assert response.status_code == 200, response.text
    return response.json()


async def pages(gateway: httpx.AsyncClient, path: str) -> AsyncIterator[list[Any]]:
    cursor = ""
    while True:
        page = await get(gateway, path + cursor)
        yield page["items"]
        if page["next_cursor"] is None:
            return
        cursor = f"&cursor={page['next_cursor']}"


@pytest.mark.parametrize("path", ["conversations/{}", "conversations/{}/messages"])
async def test_a_conversation_that_is_not_stored_is_not_found(gateway: httpx.AsyncClient, path: str) -> None:
    for reference in (uuid4(), 1):
        response = await gateway.get("/api/" + path.format(reference))

        assert (response.status_code, response.json()["code"]) == (404, "conversation_not_found")


async def test_a_conversation_by_its_id_and_by_its_key(gateway: httpx.AsyncClient, rows: Rows) -> None:
    await rows.message(BOB, ALICE, timestamp=minutes(5))
    latest = await rows.message(ALICE, BOB, timestamp=minutes(7), direction=Direction.OUTBOUND)
    await rows.message(BOB, ALICE, timestamp=minutes(6))
    await rows.event(latest, Status.FAILED, error=ERROR)

    conversation = await get(gateway, "/api/conversations/1")

    assert conversation == await get(gateway, f"/api/conversations/{conversation['key']}")
    last_message = conversation.pop("last_message")
    assert conversation == {
        "id": 1,
        "key": str(key_of(ALICE, BOB)),
        "channel": "sms",
        "participants": [ALICE, BOB],
        "message_count": 3,
        "last_message_at": "2024-11-01T14:07:00Z",
    }
    assert (last_message["id"], last_message["status"]) == (str(latest), "failed")
    assert last_message["error"]["code"] == "http_500"


async def test_messages_are_read_oldest_first_page_by_page(gateway: httpx.AsyncClient, rows: Rows) -> None:
    moments = [(3, 0), (1, 0), (2, 1), (2, 0), (2, 0), (0, 0), (4, 0)]
    ids = {
        await rows.message(BOB, ALICE, timestamp=minutes(at), created_at=minutes(10 + created)): (at, created)
        for at, created in moments
    }
    key = key_of(ALICE, BOB)

    read = [
        message["id"]
        async for page in pages(gateway, f"/api/conversations/{key}/messages?limit=2")
        for message in page
    ]

    in_order = sorted(ids, key=lambda id_: (ids[id_], id_))
    assert read == [str(id_) for id_ in in_order]
    assert [len(page) async for page in pages(gateway, "/api/conversations/1/messages?limit=7")] == [7]


async def test_a_time_that_is_not_plausible_does_not_place_a_message(
    gateway: httpx.AsyncClient, rows: Rows
) -> None:
    written = {"first": 0, "ahead": 60 * 24 * 365, "ancient": -60 * 24 * 365, "delayed": 2.5, "last": 4}
    for arrived_at, (body, written_at) in enumerate(written.items()):
        await rows.message(
            ALICE, BOB, body=body, timestamp=minutes(written_at), created_at=minutes(arrived_at)
        )
    conversation = key_of(ALICE, BOB)
    path = f"/api/conversations/{conversation}"

    page = (await gateway.get(f"{path}/messages", params={"limit": 3})).json()
    rest = await gateway.get(f"{path}/messages", params={"limit": 3, "cursor": page["next_cursor"]})
    bodies = [item["body"] for item in (*page["items"], *rest.json()["items"])]
    assert bodies == ["first", "ahead", "ancient", "delayed", "last"]

    shown = (await gateway.get(path)).json()
    assert shown["last_message"]["body"] == "last"
    assert datetime.fromisoformat(shown["last_message_at"]) == minutes(4)


async def test_a_cursor_of_another_conversation_is_refused(gateway: httpx.AsyncClient, rows: Rows) -> None:
    for other in (BOB, CAROL):
        for at in range(2):
            await rows.message(ALICE, other, timestamp=minutes(at))
    cursor = (await get(gateway, "/api/conversations/1/messages?limit=1"))["next_cursor"]

    response = await gateway.get(f"/api/conversations/2/messages?cursor={cursor}")

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "cursor"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", [3, 2, 1]),
        ("?channel=sms", [2, 1]),
        ("?channel=email", [3]),
        (f"?participant={quote(BOB)}", [1]),
        (f"?participant={BOB}", [1]),
        ("?participant=201-666-1234", [2, 1]),
        (f"?participant={quote('ANN@example.com')}", [3]),
        (f"?participant={BEN}", [3]),
        (f"?participant={ANN}&channel=sms", []),
        ("?participant=%2B15555550100", []),
        ("?updated_since=2024-11-01T14:02:00Z", [3, 2]),
        (f"?updated_since=2024-11-01T14:02:00Z&participant={quote(ALICE)}", [2]),
    ],
)
async def test_conversations_can_be_searched(
    gateway: httpx.AsyncClient, rows: Rows, query: str, found: list[int]
) -> None:
    await rows.message(ALICE, BOB, timestamp=minutes(1))
    await rows.message(ALICE, CAROL, timestamp=minutes(2))
    await rows.message(ANN, BEN, timestamp=minutes(3))

    conversations = await get(gateway, f"/api/conversations{query}")

    assert [conversation["id"] for conversation in conversations["items"]] == found
    assert conversations["next_cursor"] is None


async def test_the_pages_of_unchanged_conversations_show_each_of_them_once(
    gateway: httpx.AsyncClient, rows: Rows
) -> None:
    others = [f"+1804555{number:04}" for number in range(9)]
    for number, other in enumerate(others):
        await rows.message(other, ALICE, timestamp=minutes(number % 4))

    seen = [
        conversation["id"]
        async for page in pages(gateway, "/api/conversations?limit=2")
        for conversation in page
    ]

    by_place = sorted(range(9), key=lambda number: (number % 4, number + 1), reverse=True)
    assert seen == [number + 1 for number in by_place]


async def test_a_conversation_that_gets_a_message_moves_to_the_front(
    gateway: httpx.AsyncClient, rows: Rows
) -> None:
    for number in range(5):
        await rows.message(f"+1804555{number:04}", ALICE, timestamp=minutes(number))

    seen = []
    async for page in pages(gateway, "/api/conversations?limit=2"):
        seen += [conversation["id"] for conversation in page]
        # The oldest one gets a new message, and a conversation begins.
        await rows.message("+18045550000", ALICE, timestamp=minutes(100 + len(seen)))
        await rows.message(f"+1555555{len(seen):04}", ALICE, timestamp=minutes(100))

    assert seen == [5, 4, 3, 2]
    assert (await get(gateway, "/api/conversations"))["items"][0]["id"] == 1


async def test_a_page_shows_conversations_as_they_are_now(gateway: httpx.AsyncClient, rows: Rows) -> None:
    for number, other in enumerate((BOB, CAROL)):
        await rows.message(ALICE, other, timestamp=minutes(number))
    cursor = (await get(gateway, "/api/conversations?limit=1"))["next_cursor"]
    await rows.message(ALICE, BOB, timestamp=minutes(-1), body="older")

    [conversation] = (await get(gateway, f"/api/conversations?limit=1&cursor={cursor}"))["items"]

    assert (conversation["message_count"], conversation["last_message"]["body"]) == (2, "Hello")


async def test_a_cursor_of_other_filters_is_refused(gateway: httpx.AsyncClient, rows: Rows) -> None:
    for number, other in enumerate((BOB, CAROL)):
        await rows.message(ALICE, other, timestamp=minutes(number))
    cursor = (await get(gateway, "/api/conversations?limit=1&channel=sms"))["next_cursor"]

    for query in ("", "&channel=email", f"&channel=sms&participant={quote(BOB)}"):
        response = await gateway.get(f"/api/conversations?cursor={cursor}{query}")
        assert response.json()["errors"][0]["field"] == "cursor"
    assert (await gateway.get(f"/api/conversations?cursor={cursor}&channel=sms")).status_code == 200
