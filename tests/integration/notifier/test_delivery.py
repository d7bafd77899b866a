"""The notifier sends events to the endpoints of applications."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError
from structlog.testing import capture_logs

from shared.bus.publisher import Outgoing
from shared.bus.topology import Stream
from shared.channels import Channel
from shared.ids import new_event_id
from shared.notifications import NotificationType
from tests.integration.notifier.conftest import Harness, Start
from tests.receiver import Webhook as Received
from tests.receiver import answering, hanging
from tests.waiting import eventually

pytestmark = pytest.mark.integration

LATER = "3600"


def verify(secret: str, received: Received) -> Any:  # noqa: ANN401 - JSON
    return Webhook(secret).verify(received.body, dict(received.headers))


async def test_an_event_arrives_signed(harness: Harness, start_notifier: Start) -> None:
    endpoint = await harness.create("app")
    async with start_notifier():
        event = await harness.publish()

        (received,) = await harness.receiver.until("app", 1)

        assert verify(endpoint["secret"], received) == received.json
        assert received.id == received.json["id"] == str(event.id)
        assert received.json["type"] == event.type
        assert received.json["sequence"] == 1
        (attempt,) = await harness.attempts(endpoint, 1)
        assert attempt["succeeded"]
        assert attempt["status_code"] == 204


async def test_a_reply_arrives_with_the_message_as_the_api_shows_it(
    harness: Harness, start_notifier: Start
) -> None:
    await harness.create("app", event_types=["message.received"])
    async with start_notifier():
        reply = {
            "from": "+18045551234",
            "to": "+12016661234",
            "type": "sms",
            "messaging_provider_id": "message-1",
            "body": "Hello yourself!",
            "attachments": None,
            "timestamp": "2024-11-01T14:00:00Z",
        }
        response = await harness.client.post("/api/webhooks/sms", json=reply)
        assert response.status_code == 200, response.text
        (received,) = await harness.receiver.until("app", 1)

    message = received.json["data"]
    shown = (await harness.client.get(f"/api/messages/{message['id']}")).json()
    assert message["body"] == "Hello yourself!"
    assert message.items() <= shown.items()


async def test_both_secrets_verify_after_a_rotation(harness: Harness, start_notifier: Start) -> None:
    endpoint = await harness.create("app")
    rotated = (await harness.post(endpoint, "rotate-secret")).json()
    async with start_notifier():
        await harness.publish()
        (received,) = await harness.receiver.until("app", 1)

    assert rotated["secret"] != endpoint["secret"]
    assert rotated["former_secret_expires_at"] is not None
    for secret in (endpoint["secret"], rotated["secret"]):
        assert verify(secret, received)
    with pytest.raises(WebhookVerificationError):
        verify("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", received)


async def test_a_failed_event_is_sent_again_with_the_same_id(harness: Harness, start_notifier: Start) -> None:
    harness.receiver.responses["app"] = answering(500, 302, 204, text="x" * 5_000)
    endpoint = await harness.create("app")
    async with start_notifier():
        event = await harness.publish()

        received = await harness.receiver.until("app", 3)

        assert {each.id for each in received} == {str(event.id)}
        assert len({each.body for each in received}) == 1
        attempts = await harness.attempts(endpoint, 3)
        assert [each["status_code"] for each in attempts] == [204, 302, 500]
        assert [each["attempt"] for each in attempts] == [3, 2, 1]
        assert len(attempts[-1]["response"]) == 1_024


async def test_an_event_is_given_up_after_the_last_attempt(harness: Harness, start_notifier: Start) -> None:
    harness.receiver.responses["app"] = answering(500)
    endpoint = await harness.create("app")
    async with start_notifier(webhook_retry_delays="0.1"):
        await harness.publish()
        last, first = await harness.attempts(endpoint, 2)

    assert first["next_attempt_at"] is not None
    assert last["next_attempt_at"] is None


async def test_retry_after_is_honoured(harness: Harness, start_notifier: Start) -> None:
    harness.receiver.responses["app"] = answering(503, headers={"Retry-After": LATER})
    endpoint = await harness.create("app")
    async with start_notifier():
        await harness.publish()
        (attempt,) = await harness.attempts(endpoint, 1)

    delay = datetime.fromisoformat(attempt["next_attempt_at"]) - datetime.fromisoformat(attempt["started_at"])
    assert delay >= timedelta(seconds=int(LATER))


async def test_an_endpoint_that_is_gone_is_disabled_and_others_are_told(
    harness: Harness, start_notifier: Start
) -> None:
    harness.receiver.responses["gone"] = answering(410)
    gone = await harness.create("gone", event_types=["recipient.opted_out"])
    await harness.create("other", event_types=["webhook_endpoint.disabled"])
    async with start_notifier():
        await harness.publish(type=NotificationType.RECIPIENT_OPTED_OUT)
        (told,) = await harness.receiver.until("other", 1)

        async def is_disabled() -> bool:
            return bool((await harness.get(gone))["state"] == "disabled")

        await eventually(is_disabled)
        assert (await harness.get(gone))["disabled_reason"] == "gone"
        assert told.json["data"]["id"] == gone["id"]
        assert told.json["data"]["disabled_reason"] == "gone"
        assert len(harness.receiver.received["gone"]) == 1


async def test_dead_endpoints_do_not_delay_a_healthy_one(harness: Harness, start_notifier: Start) -> None:
    harness.receiver.responses |= {"hangs": hanging, "fails": answering(500), "gone": answering(410)}
    opted_out = NotificationType.RECIPIENT_OPTED_OUT
    for name in ("hangs", "hangs", "fails", "gone", "healthy"):
        await harness.create(name, event_types=[opted_out])
    async with start_notifier():
        # Far more than may be in progress for one endpoint.
        events = await asyncio.gather(*(harness.publish(type=opted_out) for _ in range(100)))
        healthy = await harness.receiver.until("healthy", 100)

        assert {each.id for each in healthy} == {str(event.id) for event in events}
        assert 0 < len(harness.receiver.received["hangs"]) <= 2 * (16 + 4)


async def test_filters_select_events(harness: Harness, start_notifier: Start) -> None:
    await harness.create("typed", event_types=["recipient.opted_in"])
    await harness.create("email", channels=["email"])
    await harness.create("ours", addresses=["(201) 666-1234"])
    await harness.create("all")
    opted_out, opted_in = NotificationType.RECIPIENT_OPTED_OUT, NotificationType.RECIPIENT_OPTED_IN
    async with start_notifier():
        wanted = {
            "typed": await harness.publish(type=opted_in, our_address="+12025550100"),
            "email": await harness.publish(
                type=opted_out, channel=Channel.EMAIL, our_address="a@example.com"
            ),
            "ours": await harness.publish(type=opted_out, our_address="+12016661234"),
        }
        await harness.receiver.until("all", 3)
        for name, event in wanted.items():
            assert [each.id for each in await harness.receiver.until(name, 1)] == [str(event.id)]


async def test_changes_apply_without_a_restart(harness: Harness, start_notifier: Start) -> None:
    async with start_notifier():
        endpoint = await harness.create("first")
        await harness.publish()
        await harness.receiver.until("first", 1)

        await harness.patch(endpoint, url=harness.receiver.url("second"))

        async def is_changed() -> bool:
            await harness.publish()
            return bool(harness.receiver.received["second"])

        await eventually(is_changed)
        disabled = await harness.patch(endpoint, state="disabled")
        assert disabled["disabled_reason"] == "requested"
        assert (await harness.patch(endpoint, state="enabled"))["state"] == "enabled"
        event = await harness.publish()

        async def is_received() -> bool:
            return str(event.id) in {each.id for each in harness.receiver.received["second"]}

        await eventually(is_received)


async def test_a_deleted_endpoint_gets_no_more_attempts(harness: Harness, start_notifier: Start) -> None:
    harness.receiver.responses["app"] = answering(500)
    endpoint = await harness.create("app")
    async with start_notifier(webhook_retry_delays="1.5,1.5"):
        await harness.publish()
        await harness.receiver.until("app", 1)
        response = await harness.client.delete(f"/api/webhook-endpoints/{endpoint['id']}")
        assert response.status_code == 204
        assert (await harness.client.get("/api/webhook-endpoints")).json()["items"] == []

        # The schedule fires nevertheless, after which another endpoint is sent an event.
        async def is_due() -> bool:
            info = await harness.bus.jetstream.stream_info(
                Stream.WEBHOOK_RETRIES, subjects_filter="webhook.due.>"
            )
            return bool(info.state.subjects)

        await eventually(is_due)
        await harness.create("other")
        await harness.publish()
        await harness.receiver.until("other", 1)
        assert len(harness.receiver.received["app"]) == 1


async def test_events_are_sent_on_request(harness: Harness, start_notifier: Start) -> None:
    harness.receiver.responses["app"] = answering(500, 204)
    endpoint = await harness.create("app")
    async with start_notifier(webhook_retry_delays=LATER):
        tested = (await harness.post(endpoint, "test")).json()["event_id"]
        await harness.receiver.until("app", 1)
        (test,) = await harness.attempts(endpoint, 1)
        assert (test["trigger"], test["event_id"], test["event_type"]) == (
            "test",
            tested,
            "webhook_endpoint.test",
        )
        harness.receiver.responses["app"] = answering(500)
        event = await harness.publish()
        failed, _ = await harness.attempts(endpoint, 2)
        harness.receiver.responses["app"] = answering(204)

        response = await harness.post(endpoint, f"attempts/{failed['id']}/retry")

        assert response.json() == {"event_id": str(event.id)}
        retried, *_ = await harness.attempts(endpoint, 1, event_id=str(event.id), succeeded=True)
        assert retried["trigger"] == "retry"
        assert retried["succeeded"]
        refused = await harness.post(endpoint, f"attempts/{test['id']}/retry")
        assert refused.json()["code"] == "event_not_retained"


async def test_missed_events_are_recovered(harness: Harness, start_notifier: Start) -> None:
    since = datetime.now(UTC)
    endpoint = await harness.create("app")
    async with start_notifier():
        received = await harness.publish()
        await harness.attempts(endpoint, 1)
    await harness.patch(endpoint, state="disabled")
    missed = [await harness.publish() for _ in range(3)]
    of_later_release = Outgoing("notification.message.flown", new_event_id(), b'{"type": "message.flown"}')
    await harness.publisher.publish(Stream.NOTIFICATIONS, of_later_release)
    await harness.patch(endpoint, state="enabled")
    async with start_notifier():
        body: dict[str, Any] = {"since": since.isoformat(), "limit": 2}
        first = (await harness.post(endpoint, "recover", body)).json()
        second = (await harness.post(endpoint, "recover", {**body, "after": first["next_after"]})).json()

        assert (first["scheduled"], second) == (2, {"scheduled": 1, "next_after": None})
        webhooks = await harness.receiver.until("app", 4)
        assert {each.id for each in webhooks} == {str(event.id) for event in (received, *missed)}


async def test_a_secret_is_shown_once_and_never_logged(harness: Harness, start_notifier: Start) -> None:
    with capture_logs() as logs:
        endpoint = await harness.create("app")
        rotated = (await harness.post(endpoint, "rotate-secret")).json()
        async with start_notifier():
            await harness.publish()
            await harness.attempts(endpoint, 1)
        listed = (await harness.client.get("/api/webhook-endpoints")).json()
        answers = [listed, await harness.get(endpoint), await harness.patch(endpoint, description="x")]
        stored = await harness.bus.jetstream.get_msg(
            "KV_WEBHOOK_ENDPOINTS", subject=f"$KV.WEBHOOK_ENDPOINTS.{endpoint['id']}"
        )
    for secret in (endpoint["secret"], rotated["secret"]):
        for place in (answers, logs):
            assert secret not in json.dumps(place, default=str)
        assert secret.removeprefix("whsec_").encode() not in (stored.data or b"")
