"""The gateway while PostgreSQL or NATS is unavailable."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from shared.channels import Channel
from shared.unsubscribe import Subscription
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.rows import Rows
from tests.integration.gateway.streams import NOWHERE
from tests.messages import ALICE, BOB
from tests.webhooks import (
    DELIVERED,
    FORM,
    JSON,
    MAIL,
    MULTIPART,
    SENDGRID_EVENTS,
    SENDGRID_INBOUND,
    SMS,
    STATUS,
    TWILIO_MESSAGES,
    TWILIO_STATUS,
    events,
    multipart,
    urlencoded,
)

pytestmark = pytest.mark.integration

LONGEST = 5
"""Seconds within which a client gets a response."""

TO_BOB = {"from": ALICE, "to": BOB, "type": "sms", "body": "Hello"}
NO_NATS = "nats://127.0.0.1:1"
SECRET = "a secret of some length"


async def test_without_postgresql_only_reading_fails(start_gateway: StartGateway, nats_url: str) -> None:
    async with start_gateway(nats_url=nats_url, database_url=NOWHERE) as gateway:
        await assert_only_reading_fails(gateway)


async def test_a_postgresql_that_hangs_does_not_hang_the_gateway(
    start_gateway: StartGateway, nats_url: str, database_url: str, rows: Rows
) -> None:
    await rows.message(ALICE, BOB)
    async with (
        Line.to(database_url) as line,
        start_gateway(nats_url=nats_url, database_url=line.url) as gateway,
    ):
        assert await conversations(gateway) == 1
        line.hang()
        await assert_only_reading_fails(gateway)
        line.work()
        line.break_connections()
        assert await conversations(gateway) == 1


async def test_a_restart_of_postgresql_goes_unnoticed(gateway: httpx.AsyncClient, rows: Rows) -> None:
    await rows.message(ALICE, BOB)
    assert await conversations(gateway) == 1
    async with rows.engine.begin() as connection:
        await connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gateway'")
        )

    assert await conversations(gateway) == 1


async def conversations(gateway: httpx.AsyncClient) -> int:
    response = await gateway.get("/api/conversations")
    assert response.status_code == 200, response.text
    return len(response.json()["items"])


async def assert_only_reading_fails(gateway: httpx.AsyncClient) -> None:
    paths = (
        *("messages/{}", "messages?status=scheduled", "conversations/{}", "conversations/{}/messages"),
        *("conversations", "dead-letters", "dead-letters/{}", "suppressions"),
    )
    async with asyncio.timeout(LONGEST):
        reads = await asyncio.gather(*(gateway.get("/api/" + path.format(uuid4())) for path in paths))
    async with asyncio.timeout(LONGEST):
        replay = await gateway.post(f"/api/dead-letters/{uuid4()}/replay")
    async with asyncio.timeout(LONGEST):
        bulk = await gateway.post("/api/dead-letters/replay", json={"all": True})
    async with asyncio.timeout(LONGEST):
        cancellation = await gateway.delete(f"/api/messages/{uuid4()}")
    for response in (*reads, replay, bulk, cancellation):
        assert (response.status_code, response.json()["code"]) == (503, "database_unavailable")
        assert int(response.headers["retry-after"]) > 0
        assert response.json()["detail"] == "The database cannot be read at the moment"

    assert (await gateway.post("/api/messages/sms", json=TO_BOB)).status_code == 202
    webhook = {**TO_BOB, "messaging_provider_id": "1"}
    assert (await gateway.post("/api/webhooks/sms", json=webhook)).status_code == 200
    assert (await gateway.delete(f"/api/suppressions/{BOB}")).status_code == 204
    readiness = await gateway.get("/readyz")
    assert readiness.status_code == 200
    assert readiness.json() == {
        "status": "ready",
        "postgresql": "does not answer, or has no schema: nothing can be read",
    }


async def test_without_nats_nothing_is_accepted(start_gateway: StartGateway) -> None:
    link = Subscription(Channel.EMAIL, "ann@example.com", "ben@example.org").sign(SECRET)
    key = {"Idempotency-Key": "a-key"}
    async with start_gateway(
        ready=False, nats_url=NO_NATS, database_url=NOWHERE, unsubscribe_secret=SECRET
    ) as gateway:
        responses = [
            await gateway.post("/api/messages/sms", json=TO_BOB),
            await gateway.post("/api/messages/sms", json=TO_BOB, headers=key),
            await gateway.put(f"/api/suppressions/{BOB}", json={"reason": "a test"}),
            await gateway.delete(f"/api/suppressions/{BOB}"),
            await gateway.post(f"/unsubscribe/{link}"),
            *[await gateway.post(path, **request) for path, request in webhooks().items()],
        ]
        readiness = await gateway.get("/readyz")
        health = await gateway.get("/healthz")

    for response in responses:
        assert (response.status_code, response.json()["code"]) == (503, "bus_unavailable")
        assert int(response.headers["retry-after"]) > 0
        assert response.json()["detail"].startswith("NATS does not answer. ")
    assert readiness.status_code == 503
    assert (readiness.json()["status"], readiness.json()["reason"]) == ("not ready", "NATS is not connected")
    assert health.status_code == 200


def webhooks() -> dict[str, dict[str, Any]]:
    return {
        "/api/webhooks/sms": {"json": {**TO_BOB, "messaging_provider_id": "1"}},
        TWILIO_MESSAGES: {"content": urlencoded(SMS), "headers": FORM},
        TWILIO_STATUS: {"content": urlencoded(STATUS), "headers": FORM},
        SENDGRID_INBOUND: {"content": multipart(MAIL), "headers": MULTIPART},
        SENDGRID_EVENTS: {"content": events(DELIVERED), "headers": JSON},
    }


class Line:
    """A connection to PostgreSQL that can hang, as a network connection can."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._works = asyncio.Event()
        self._works.set()
        self._writers: list[asyncio.StreamWriter] = []
        self.url = ""

    @classmethod
    @asynccontextmanager
    async def to(cls, url: str) -> AsyncIterator["Line"]:
        parts = urlsplit(url)
        line = cls(parts.hostname or "", parts.port or 5432)
        server = await asyncio.start_server(line._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        line.url = parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}").geturl()
        try:
            yield line
        finally:
            line.work()
            line.break_connections()
            server.close()

    def hang(self) -> None:
        self._works.clear()

    def work(self) -> None:
        self._works.set()

    def break_connections(self) -> None:
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        self._writers += [writer, server_writer]
        await asyncio.gather(self._pump(reader, server_writer), self._pump(server_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                await self._works.wait()
                writer.write(data)
        except ConnectionError:
            pass
        writer.close()
