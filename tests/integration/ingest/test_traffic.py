"""Messages are counted by minute, once each."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.gateway.operations.queries import TrafficQueries
from shared.bus.publisher import Publisher
from shared.db.reader import Reader
from tests.events import received
from tests.notifications import publish_stored, store

pytestmark = pytest.mark.integration

NOW = datetime.now(UTC).replace(second=30, microsecond=0)
MINUTE = timedelta(minutes=1)

_INSERT = text("INSERT INTO notification_outbox (type, cause, content) VALUES (:type, :cause, :content)")


async def add(engine: AsyncEngine, *notifications: tuple[str, datetime, dict[str, Any]]) -> None:
    statement = text(
        "INSERT INTO notification_outbox (type, cause, content) VALUES (:type, :cause, :content)"
    )
    async with engine.begin() as connection:
        for number, (type_, at, fields) in enumerate(notifications):
            content = {"occurred_at": at, "channel": "sms", "message_id": str(received().data.message.id)}
            row = {
                "type": type_,
                "cause": f"{at} {number}",
                "content": orjson.dumps(content | fields).decode(),
            }
            await connection.execute(statement, row)


async def test_messages_are_counted_by_minute_channel_provider_and_kind(
    engine: AsyncEngine, publisher: Publisher
) -> None:
    await store(engine, [received()])
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM notification_outbox"))
    of_provider = {"report": {"provider": "generic_sms"}}
    failed = {"report": {"error": {"provider": "twilio", "code": "http_500"}}}
    await add(
        engine,
        *[("message.sent", NOW - MINUTE, of_provider)] * 3,
        ("message.sent", NOW, of_provider),
        ("message.failed", NOW, failed),
        ("message.accepted", NOW, {}),
        ("message.received", NOW, {}),
        ("message.sent", NOW - timedelta(hours=2), of_provider),
        ("conversation.created", NOW, {}),
    )
    await publish_stored(engine, publisher)
    await add(engine, ("message.sent", NOW, of_provider))
    await publish_stored(engine, publisher)

    traffic = await TrafficQueries(Reader(engine)).last_hour(NOW)
    assert traffic.minutes[-1] == NOW.replace(second=0)
    assert len(traffic.minutes) == 60
    found = {(each.channel, each.provider, each.kind): each.counts[-2:] for each in traffic.series}
    assert found == {
        ("sms", None, "accepted"): [0, 1],
        ("sms", received().data.message.provider, "received"): [0, 1],
        ("sms", "generic_sms", "sent"): [3, 2],
        ("sms", "twilio", "failed"): [0, 1],
    }
