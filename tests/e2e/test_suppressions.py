"""Opting out and in again, and other events, through the mocks of Twilio and SendGrid."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.stack import JSON, Stack, running_stack
from tests.waiting import eventually
from tests.webhooks import DELIVERED, PRIVATE_KEY, PUBLIC_KEY, SENDGRID_EVENTS, by_sendgrid, events
from tests.webhooks import JSON as JSON_TYPE

OURS, THEIRS = "+12016661234", "+18045551234"
ANN, BEN = "ann@example.com", "ben@example.org"


@pytest.fixture
async def stack(tmp_path: Path, database_url: str, nats_url: str) -> AsyncIterator[Stack]:
    """Run all services, which send through Twilio and SendGrid."""
    settings = {
        "SMS_PROVIDERS": "twilio",
        "TWILIO_URL": "$SMS_PROVIDER_URL",
        "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
        "TWILIO_AUTH_TOKEN": "mock-auth-token",
        "EMAIL_PROVIDERS": "sendgrid",
        "SENDGRID_URL": "$EMAIL_PROVIDER_URL",
        "SENDGRID_API_KEY": "SG.mock",
        "SENDGRID_WEBHOOK_PRIVATE_KEY": PRIVATE_KEY,
        "SENDGRID_WEBHOOK_PUBLIC_KEY": PUBLIC_KEY,
        "PUBLIC_BASE_URL": "$GATEWAY_URL",
        "UNSUBSCRIBE_SECRET": "a secret of some length",
    }
    running = running_stack(tmp_path, database_url=database_url, nats_url=nats_url, settings=settings)
    async with running as stack:
        yield stack


async def text(stack: Stack, body: str) -> None:
    """Deliver an inbound SMS through Twilio."""
    payload = {"From": THEIRS, "To": OURS, "Body": body}
    response = await stack.client.post(f"{stack.sms.url}/mock/twilio/inbound", json=payload)
    assert response.json()["status"] == 200, response.text


async def send_email(stack: Stack, **fields: Any) -> tuple[int, JSON]:  # noqa: ANN401
    payload = {"from": ANN, "to": BEN, "subject": "Hello", "body": "Hello", **fields}
    response = await stack.post("/api/messages/email", payload)
    return response.status_code, response.json()


async def suppressed(stack: Stack) -> list[tuple[str, str | None, str]]:
    found = await stack.items("/api/suppressions")
    return [(each["address"], each["sender"], each["source"]) for each in found]


async def test_a_stop_reply_through_twilio_suppresses_until_start(stack: Stack) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=3)
    scheduled = await stack.send(body="later", send_at=soon.isoformat())
    await stack.message_becomes(scheduled["id"], "scheduled")
    await text(stack, "STOP")

    refused = await stack.post("/api/messages/sms", {"from": OURS, "to": THEIRS, "type": "sms", "body": "no"})
    assert (refused.status_code, refused.json()["code"]) == (409, "recipient_opted_out")
    assert "keyword" in refused.json()["detail"]
    failed = await stack.message_becomes(scheduled["id"], "failed", "sent")
    assert (failed["status"], failed["error"]["code"]) == ("failed", "opted_out")
    await eventually(lambda: _is([(THEIRS, OURS, "keyword")], stack))
    assert await stack.sms.messages() == []

    await text(stack, "start")
    sent = await stack.send(body="welcome back")
    await stack.message_becomes(sent["id"], "sent", "delivered")
    assert [each["payload"]["Body"] for each in await stack.sms.messages()] == ["welcome back"]
    await eventually(lambda: _is([], stack))


async def test_an_opt_out_that_twilio_reports_is_recorded(stack: Stack) -> None:
    opted_out = "+15005550004"  # 21610 at Twilio
    first = await stack.send(to=opted_out)
    failed = await stack.message_becomes(first["id"], "failed")
    assert failed["error"]["code"] == "opted_out"
    again = await stack.post(
        "/api/messages/sms", {"from": OURS, "to": opted_out, "type": "sms", "body": "again"}
    )
    assert (again.status_code, again.json()["code"]) == (409, "recipient_opted_out")
    assert "(provider)" in again.json()["detail"]


async def test_a_spam_report_and_a_click_on_the_link_suppress_an_email_address(stack: Stack) -> None:
    reports = [{"event": "spamreport", "email": BEN, "timestamp": int(datetime.now(UTC).timestamp())}]
    await stack.client.post(f"{stack.email.url}/mock/sendgrid/events", json=reports)
    status, problem = await send_email(stack)
    assert (status, problem["code"]) == (409, "recipient_opted_out")
    assert re.search(r"from all senders on .+ \(spam_report\)", problem["detail"])
    assert (await send_email(stack, to="eve@example.org"))[0] == 202

    async def link() -> str | None:
        for sent in await stack.email.messages():
            headers = sent["payload"].get("headers", {})
            assert headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
            return re.fullmatch(r"<(http://.+/unsubscribe/[\w.-]+)>", headers["List-Unsubscribe"])[1]  # type: ignore[index]  # fails if there is no match
        return None

    url = await eventually(link)
    assert url is not None
    clicked = await stack.client.post(url, data={"List-Unsubscribe": "One-Click"})
    assert clicked.status_code == 200
    assert (await send_email(stack, to="eve@example.org"))[0] == 409
    assert (await send_email(stack, to="eve@example.org", **{"from": "other@example.com"}))[0] == 202
    expected = [("eve@example.org", ANN, "unsubscribe"), (BEN, None, "spam_report")]
    await eventually(lambda: _is(expected, stack))


async def test_an_event_of_an_unknown_kind_is_in_the_history_of_its_message(stack: Stack) -> None:
    _, accepted = await send_email(stack)
    sent = await stack.message_becomes(accepted["id"], "sent", "delivered")
    event = {
        **DELIVERED,
        "event": "Mailbox_Full",
        "reason": "452 4.2.2",
        "sg_event_id": "event-of-a-new-kind",
        "sg_message_id": f"{sent['provider_message_id']}.recvd-1",
        "message_id": accepted["id"],
        "timestamp": int(datetime.now(UTC).timestamp()),
    }
    posted = await stack.client.post(
        f"{stack.gateway_url}{SENDGRID_EVENTS}", **by_sendgrid(events(event, {"event": "open"}), JSON_TYPE)
    )
    assert posted.json() == {"receipts": 1, "suppressions": 0, "invalid": 0}

    async def unknown() -> list[JSON]:
        history = (await stack.get(f"/api/messages/{accepted['id']}")).json()["history"]
        return [each for each in history if each["status"] == "unknown"]

    [found] = await eventually(unknown)
    assert (found["error"]["code"], found["error"]["detail"]) == ("mailbox_full", "452 4.2.2")
    shown = await stack.message_becomes(accepted["id"], "sent", "delivered")
    assert shown["error"] is None


async def _is(expected: list[tuple[str, str | None, str]], stack: Stack) -> bool:
    """Return whether the suppression list is as expected."""
    return await suppressed(stack) == expected
