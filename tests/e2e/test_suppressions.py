"""Opting out and in again, with Twilio and SendGrid as the mocks speak them."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.stack import JSON, Stack, running_stack
from tests.waiting import eventually

OURS, THEIRS = "+12016661234", "+18045551234"
ANN, BEN = "ann@example.com", "ben@example.org"


@pytest.fixture
async def stack(tmp_path: Path, database_url: str, nats_url: str) -> AsyncIterator[Stack]:
    """All services, which send through Twilio and SendGrid."""
    settings = {
        "SMS_PROVIDERS": "twilio",
        "TWILIO_URL": "$SMS_PROVIDER_URL",
        "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
        "TWILIO_AUTH_TOKEN": "mock-auth-token",
        "EMAIL_PROVIDERS": "sendgrid",
        "SENDGRID_URL": "$EMAIL_PROVIDER_URL",
        "SENDGRID_API_KEY": "SG.mock",
        "PUBLIC_BASE_URL": "$GATEWAY_URL",
        "UNSUBSCRIBE_SECRET": "a secret of some length",
    }
    running = running_stack(tmp_path, database_url=database_url, nats_url=nats_url, settings=settings)
    async with running as stack:
        yield stack


async def text(stack: Stack, body: str) -> None:
    """Let somebody write to us by Twilio."""
    payload = {"From": THEIRS, "To": OURS, "Body": body}
    taken = await stack.client.post(f"{stack.sms.url}/mock/twilio/inbound", json=payload)
    assert taken.json()["status"] == 200, taken.text


async def mail(stack: Stack, **what: Any) -> tuple[int, JSON]:  # noqa: ANN401
    payload = {"from": ANN, "to": BEN, "subject": "Hello", "body": "Hello", **what}
    response = await stack.post("/api/messages/email", payload)
    return response.status_code, response.json()


async def suppressed(stack: Stack) -> list[tuple[str, str | None, str]]:
    found = await stack.items("/api/suppressions")
    return [(each["address"], each["sender"], each["source"]) for each in found]


async def test_stop_by_twilio_holds_until_start(stack: Stack) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=3)
    waiting = await stack.send(body="later", send_at=soon.isoformat())
    await stack.message_becomes(waiting["id"], "scheduled")
    await text(stack, "STOP")

    refused = await stack.post("/api/messages/sms", {"from": OURS, "to": THEIRS, "type": "sms", "body": "no"})
    assert (refused.status_code, "keyword" in refused.json()["detail"]) == (409, True)
    failed = await stack.message_becomes(waiting["id"], "failed", "sent")
    assert (failed["status"], failed["error"]["code"]) == ("failed", "opted_out")
    await eventually(lambda: _is([(THEIRS, OURS, "keyword")], stack))
    assert await stack.sms.messages() == []

    await text(stack, "start")
    sent = await stack.send(body="welcome back")
    await stack.message_becomes(sent["id"], "sent", "delivered")
    assert [each["payload"]["Body"] for each in await stack.sms.messages()] == ["welcome back"]
    await eventually(lambda: _is([], stack))


async def test_what_twilio_knows_and_we_did_not_holds_from_then_on(stack: Stack) -> None:
    opted_out = "+15005550004"  # 21610 at Twilio
    first = await stack.send(to=opted_out)
    failed = await stack.message_becomes(first["id"], "failed")
    assert failed["error"]["code"] == "opted_out"
    again = await stack.post(
        "/api/messages/sms", {"from": OURS, "to": opted_out, "type": "sms", "body": "again"}
    )
    assert (again.status_code, "(provider)" in again.json()["detail"]) == (409, True)


async def test_a_spam_report_and_a_click_in_a_mail_end_all_mails(stack: Stack) -> None:
    reports = [{"event": "spamreport", "email": BEN, "timestamp": int(datetime.now(UTC).timestamp())}]
    await stack.client.post(f"{stack.email.url}/mock/sendgrid/events", json=reports)
    status, problem = await mail(stack)
    assert (status, "of us since" in problem["detail"], "spam_report" in problem["detail"]) == (
        409,
        True,
        True,
    )
    assert (await mail(stack, to="eve@example.org"))[0] == 202

    async def link() -> str | None:
        for taken in await stack.email.messages():
            headers = taken["payload"].get("headers", {})
            assert headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
            return re.fullmatch(r"<(http://.+/unsubscribe/[\w-]+)>", headers["List-Unsubscribe"])[1]  # type: ignore[index]  # or it fails
        return None

    url = await eventually(link)
    assert url is not None
    clicked = await stack.client.post(url, data={"List-Unsubscribe": "One-Click"})
    assert clicked.status_code == 200
    assert (await mail(stack, to="eve@example.org"))[0] == 409
    assert (await mail(stack, to="eve@example.org", **{"from": "dead_letters@example.com"}))[0] == 202
    expected = [("eve@example.org", ANN, "unsubscribe"), (BEN, None, "spam_report")]
    await eventually(lambda: _is(expected, stack))


async def _is(expected: list[tuple[str, str | None, str]], stack: Stack) -> bool:
    return await suppressed(stack) == expected
