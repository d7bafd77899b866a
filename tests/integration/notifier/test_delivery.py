"""The notifier sends events to the endpoints of applications."""

import pytest
from standardwebhooks import Webhook

from tests.integration.notifier.conftest import Harness, Start
from tests.receiver import answering

pytestmark = pytest.mark.integration


async def test_an_event_arrives_signed(harness: Harness, start_notifier: Start) -> None:
    endpoint = await harness.create("app")
    async with start_notifier():
        event = await harness.publish()

        (received,) = await harness.receiver.until("app", 1)

        assert Webhook(endpoint["secret"]).verify(received.body, dict(received.headers)) == received.json
        assert received.id == received.json["id"] == str(event.id)
        assert received.json["type"] == event.type
        assert received.json["sequence"] == 1
        (attempt,) = await harness.attempts(endpoint, 1)
        assert attempt["succeeded"]
        assert attempt["status_code"] == 204


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
