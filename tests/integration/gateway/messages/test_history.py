"""Messages and their history, as they are stored."""

from typing import Any
from uuid import uuid4

import httpx
import pytest

from shared.channels import Direction, MessageType
from shared.status import IN_DOUBT, Status
from tests.integration.gateway.rows import Rows, key_of, minutes
from tests.messages import ALICE, BOB

pytestmark = pytest.mark.integration

ERROR = {"code": "http_500", "detail": "no", "attempt": 1, "status_code": 500, "at": "2024-11-01T14:00:00Z"}


async def get(gateway: httpx.AsyncClient, path: str) -> Any:  # noqa: ANN401 - JSON
    response = await gateway.get(path)
    assert response.status_code == 200, response.text
    return response.json()


async def test_an_outbound_message_with_its_history(gateway: httpx.AsyncClient, rows: Rows) -> None:
    id_ = await rows.message(
        ALICE, BOB, direction=Direction.OUTBOUND, type=MessageType.MMS, attachments=["attachment-url"]
    )
    await rows.event(id_, Status.ACCEPTED, attempt=0, occurred_at=minutes(0))
    await rows.event(id_, Status.RETRYING, error=ERROR, next_attempt_at=minutes(2), occurred_at=minutes(1))
    await rows.event(
        id_, Status.SENT, attempt=2, provider="generic_sms", provider_message_id="S1", occurred_at=minutes(2)
    )
    await rows.receipt("S1", Status.UNDELIVERED, error_code="30003", occurred_at=minutes(3))

    message = await get(gateway, f"/api/messages/{id_}")

    assert message.pop("history") == [
        {**entry, "source": entry.get("source", "event"), "generation": 0}
        for entry in [
            _entry("accepted", 0, attempt=0),
            _entry("retrying", 1, error={**ERROR, "provider": None}, next_attempt_at="2024-11-01T14:02:00Z"),
            _entry("sent", 2, attempt=2, provider="generic_sms", provider_message_id="S1"),
            _entry(
                "undelivered",
                3,
                attempt=2,
                provider="generic_sms",
                provider_message_id="S1",
                error=_error("30003"),
                source="receipt",
            ),
        ]
    ]
    assert message == {
        "id": str(id_),
        "conversation_id": 1,
        "conversation_key": str(key_of(ALICE, BOB)),
        "direction": "outbound",
        "type": "mms",
        "from": ALICE,
        "to": BOB,
        "recipients": [BOB],
        "from_name": None,
        "to_name": None,
        "subject": None,
        "body": "Hello",
        "body_type": None,
        "text": None,
        "reply_to": [],
        "cc": [],
        "bcc": [],
        "attachments": ["attachment-url"],
        "timestamp": "2024-11-01T14:00:00Z",
        "status": "undelivered",
        "provider": "generic_sms",
        "provider_message_id": "S1",
        "error": _error("30003"),
        "created_at": "2024-11-01T14:00:00Z",
        "send_at": None,
        "priority": "transactional",
        "warnings": [],
        "reference": None,
        "metadata": {},
        "media": [],
        "segments": None,
        "encoding": None,
    }


async def test_the_optional_fields_of_a_message_are_shown_wherever_it_is(
    gateway: httpx.AsyncClient, rows: Rows
) -> None:
    email = {
        "from_name": "Ann",
        "text": "Hello",
        "body_type": "html",
        "cc": [{"spelling": "Cy@example.com", "key": "cy@example.com", "name": "Doe, Cy"}],
    }
    attached: dict[str, Any] = {"reference": "order-17", "metadata": {"order": "17"}}
    id_ = await rows.message(
        "ann@example.com", "ben@example.com", direction=Direction.OUTBOUND, email=email, **attached
    )

    message = await get(gateway, f"/api/messages/{id_}")
    [conversation] = (await get(gateway, "/api/conversations"))["items"]
    [listed] = (await get(gateway, f"/api/conversations/{conversation['id']}/messages"))["items"]

    assert message.pop("history") == []
    assert message == listed == conversation["last_message"]
    assert {name: message[name] for name in attached} == attached
    assert (message["from_name"], message["to_name"]) == ("Ann", None)
    assert (message["text"], message["body_type"]) == ("Hello", "html")
    assert (message["cc"], message["bcc"], message["reply_to"]) == (['"Doe, Cy" <Cy@example.com>'], [], [])


def _entry(status: str, minute: int, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - of an entry
    entry = {
        "status": status,
        "attempt": 1,
        "provider": None,
        "provider_message_id": None,
        "error": None,
        "next_attempt_at": None,
        "occurred_at": f"2024-11-01T14:0{minute}:00Z",
    }
    return {**entry, **fields}


def _error(code: str) -> dict[str, Any]:
    fields = ("detail", "attempt", "provider", "status_code", "at")
    return {"code": code, **dict.fromkeys(fields)}


@pytest.mark.parametrize(
    ("reports", "status"),
    [
        ([], "accepted"),
        ([(Status.SENT, 0, 1), (Status.RETRYING, 0, 2)], "sent"),
        ([(Status.DELIVERED, 0, 1), (Status.SENT, 0, 2)], "delivered"),
        ([(Status.DELIVERED, 0, 2), (Status.UNDELIVERED, 0, 1)], "delivered"),
        ([(Status.DELIVERED, 0, 1), (Status.UNDELIVERED, 0, 2)], "undelivered"),
        ([(Status.SENT, 0, 1), (Status.UNKNOWN, 0, 2)], "sent"),
        ([(Status.FAILED, 0, 1), (Status.ACCEPTED, 1, 2)], "accepted"),
        ([(Status.FAILED, 0, 9), (Status.SENT, 1, 2)], "sent"),
    ],
)
async def test_the_highest_report_counts_and_the_latest_of_equal_ones(
    gateway: httpx.AsyncClient, rows: Rows, reports: list[tuple[Status, int, int]], status: str
) -> None:
    id_ = await rows.message(ALICE, BOB, direction=Direction.OUTBOUND)
    for reported, generation, minute in reports:
        await rows.event(id_, reported, generation=generation, occurred_at=minutes(minute))

    assert (await get(gateway, f"/api/messages/{id_}"))["status"] == status


@pytest.mark.parametrize("status", [Status.SENT, Status.DELIVERED])
async def test_a_receipt_with_our_id_resolves_a_doubt(
    gateway: httpx.AsyncClient, rows: Rows, status: Status
) -> None:
    id_ = await rows.message(ALICE, BOB, direction=Direction.OUTBOUND)
    await rows.event(id_, Status.FAILED, precedence=IN_DOUBT, error=ERROR)
    await rows.receipt("SM1", status, message_id=id_)

    message = await get(gateway, f"/api/messages/{id_}")

    assert (message["status"], message["error"]) == (status, None)


async def test_an_inbound_message_has_no_history(gateway: httpx.AsyncClient, rows: Rows) -> None:
    id_ = await rows.message(BOB, ALICE, provider_message_id="message-1")

    message = await get(gateway, f"/api/messages/{id_}")

    assert (message["status"], message["history"]) == ("received", [])
    assert (message["provider"], message["provider_message_id"]) == ("generic_sms", "message-1")


async def test_a_message_that_is_not_stored_is_not_found(gateway: httpx.AsyncClient) -> None:
    response = await gateway.get(f"/api/messages/{uuid4()}")

    assert (response.status_code, response.json()["code"]) == (404, "message_not_found")
