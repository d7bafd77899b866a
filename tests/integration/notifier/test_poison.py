"""Messages and values that cannot be read stop no delivery."""

from uuid import uuid4

import pytest
from nats.js import JetStreamContext

from shared.bus.topology import WEBHOOK_ENDPOINTS_BUCKET, WEBHOOK_POSITIONS_BUCKET
from tests.integration.notifier.conftest import JSON, Harness, Start
from tests.waiting import eventually

pytestmark = pytest.mark.integration

POISON = (b"\xff\xfe\x00{garbage", b'{"truncated": ', b"[1, 2, 3]", b'{"id": 1, "data": null}')


async def test_unreadable_messages_and_values_stop_no_delivery(
    harness: Harness, start_notifier: Start, jetstream: JetStreamContext
) -> None:
    endpoint = await harness.create("app", event_types=["recipient.opted_out"])
    async with start_notifier():
        await harness.publish()
        await harness.receiver.until("app", 1)
    for payload in POISON:
        for subject in (
            "notification.message.received",
            f"webhook.due.{endpoint['id']}.0.{uuid4()}",
            f"webhook.attempt.{endpoint['id']}",
            f"$KV.{WEBHOOK_ENDPOINTS_BUCKET}.{uuid4()}",
            f"$KV.{WEBHOOK_POSITIONS_BUCKET}.{endpoint['id']}",
        ):
            await jetstream.publish(subject, payload)

    async with start_notifier():
        event = await harness.publish()
        # Its position is unreadable, so the endpoint is sent the first event again.
        received = await harness.receiver.until("app", 3)
        assert received[-1].id == str(event.id)

    async def dead_letters() -> list[JSON]:
        found: list[JSON] = (await harness.client.get("/api/dead-letters")).json()["items"]
        return found if len(found) == len(POISON) else []

    await eventually(dead_letters)  # of the attempts, which ingest reads
