"""The list of messages: its filters, its order and its pages."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from shared.channels import Direction
from shared.db import keyset
from shared.status import Status
from tests.integration.gateway.rows import START, Rows, key_of, minutes
from tests.messages import ALICE, BOB

pytestmark = pytest.mark.integration

CAROL = "+12016665678"
ANN, BEN = "ann@example.com", "ben@example.com"
ERROR = {"code": "http_400", "detail": "no", "attempt": 1, "at": "2024-11-01T14:00:00Z"}
RECEIVED, SENT, FAILED, EMAIL = range(4)
"""The messages by their age in minutes."""


@pytest.fixture
async def ids(rows: Rows) -> Mapping[int, UUID]:
    """Insert four messages; return their ids."""
    received = await rows.message(BOB, ALICE, timestamp=minutes(3), provider="twilio")
    sent = await rows.message(
        ALICE,
        BOB,
        direction=Direction.OUTBOUND,
        timestamp=minutes(2),
        reference="order-17",
        metadata={"order": "17", "shop": "a"},
    )
    failed = await rows.message(
        ALICE,
        CAROL,
        direction=Direction.OUTBOUND,
        timestamp=minutes(1),
        metadata={"order": "18", "shop": "a"},
    )
    email = await rows.message(ANN, BEN, direction=Direction.OUTBOUND, timestamp=minutes(0))
    for id_ in (sent, failed, email):
        await rows.event(id_, Status.ACCEPTED, attempt=0)
    await rows.event(sent, Status.SENT, provider="generic_sms", provider_message_id="S1")
    await rows.event(failed, Status.FAILED, provider="generic_sms", error=ERROR)
    return {RECEIVED: received, SENT: sent, FAILED: failed, EMAIL: email}


async def listed(gateway: httpx.AsyncClient, query: Mapping[str, object]) -> list[str]:
    """Return the ids of all pages, each of which has at most two messages."""
    found: list[str] = []
    parameters: dict[str, Any] = {**query, "limit": 2}
    while True:
        response = await gateway.get(f"/api/messages?{urlencode(parameters)}")
        assert response.status_code == 200, response.text
        page = response.json()
        assert len(page["items"]) <= 2
        found += [message["id"] for message in page["items"]]
        if page["next_cursor"] is None:
            return found
        parameters["cursor"] = page["next_cursor"]


FILTERS: list[tuple[dict[str, object], list[int]]] = [
    ({}, [RECEIVED, SENT, FAILED, EMAIL]),
    ({"channel": "email"}, [EMAIL]),
    ({"direction": "outbound"}, [SENT, FAILED, EMAIL]),
    ({"direction": "outbound", "channel": "sms"}, [SENT, FAILED]),
    ({"status": "received"}, [RECEIVED]),
    ({"status": "sent"}, [SENT]),
    ({"status": "accepted"}, [EMAIL]),
    ({"status": "received", "direction": "outbound"}, []),
    ({"status": "failed", "direction": "inbound"}, []),
    ({"address": ALICE}, [RECEIVED, SENT, FAILED]),
    ({"address": CAROL}, [FAILED]),
    ({"address": "ANN@example.com"}, [EMAIL]),
    ({"address": "nobody@example.com"}, []),
    ({"address": ALICE, "status": "failed"}, [FAILED]),
    ({"conversation": 1}, [RECEIVED, SENT]),
    ({"conversation": key_of(ALICE, BOB), "direction": "inbound"}, [RECEIVED]),
    ({"provider": "generic_sms"}, [SENT, FAILED]),
    ({"provider": "twilio"}, [RECEIVED]),
    ({"provider": "generic_sms", "status": "sent"}, [SENT]),
    ({"error_code": "http_400"}, [FAILED]),
    ({"error_code": "http_400", "address": BOB}, []),
    ({"reference": "order-17"}, [SENT]),
    ({"reference": "order-17", "conversation": 2}, []),
    ({"metadata[order]": "18"}, [FAILED]),
    ({"metadata[shop]": "a"}, [SENT, FAILED]),
    ({"metadata[shop]": "a", "metadata[order]": "17"}, [SENT]),
    ({"metadata[order]": ""}, []),
    ({"created_since": minutes(1).isoformat(), "created_before": minutes(3).isoformat()}, [SENT, FAILED]),
    ({"created_since": minutes(1).isoformat(), "status": "accepted"}, []),
]


@pytest.mark.parametrize(("query", "expected"), FILTERS, ids=lambda value: str(value)[:60])
async def test_messages_can_be_filtered(
    gateway: httpx.AsyncClient, ids: Mapping[int, UUID], query: dict[str, object], expected: list[int]
) -> None:
    assert await listed(gateway, query) == [str(ids[number]) for number in expected]


async def test_a_filter_is_applied_to_a_bounded_number_of_messages_for_each_page(
    gateway: httpx.AsyncClient, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyset, "SCANNED", 3)
    matching = []
    for number in range(14):
        is_match = number in (0, 5, 6, 13)
        id_ = await rows.message(
            ALICE,
            BOB,
            direction=Direction.OUTBOUND,
            timestamp=minutes(number // 2),
            reference="a" if is_match else None,
            metadata={"shop": "a", "order": "17" if is_match else "18"},
        )
        if is_match:
            matching.append(((minutes(number // 2), id_), str(id_)))
    newest_first = [id_ for _, id_ in sorted(matching, reverse=True)]

    for query in ({"metadata[shop]": "a"}, {"conversation": 1}, {"address": ALICE}):
        assert await listed(gateway, {**query, "metadata[order]": "17"}) == newest_first
    page = (await gateway.get("/api/messages?address=%2B12016661234&reference=a&status=sent")).json()
    assert (page["items"], page["next_cursor"] is None) == ([], False)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=lost", "status"),
        ("address=%2B1", "address"),
        ("conversation=first", "conversation"),
        ("created_since=yesterday", "created_since"),
        ("created_before=2024-11-01T14:00:00", "created_before"),
        ("cursor=AAAA", "cursor"),
        ("reference=%00", "reference"),
        ("error_code=%00", "error_code"),
        ("metadata[order]=%00", "metadata"),
        (f"metadata[{'k' * 65}]=17", "metadata"),
    ],
)
async def test_an_invalid_filter_is_named(gateway: httpx.AsyncClient, query: str, field: str) -> None:
    response = await gateway.get(f"/api/messages?{query}")

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]


async def test_a_message_that_was_deleted_is_in_no_list(rows: Rows) -> None:
    await rows.message(ALICE, BOB, direction=Direction.OUTBOUND, timestamp=START, metadata={"order": "17"})
    async with rows.engine.begin() as connection:
        await connection.execute(text("DELETE FROM messages"))

        for table in ("participant_messages", "message_metadata", "message_states"):
            assert await connection.scalar(text(f"SELECT count(*) FROM {table}")) == 0  # noqa: S608
        last = await connection.scalar(text("SELECT max(last_message_at) FROM conversation_participants"))
    assert last is None
