"""Outages of services and servers: no accepted message is lost or sent twice."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import nats as nats_client
import pytest

from shared.bus.provision import provision
from tests import infrastructure
from tests.conftest import sqlalchemy_url
from tests.e2e.stack import JSON, Stack, running_stack
from tests.e2e.test_replay import alembic
from tests.waiting import eventually


async def sent_once(stack: Stack, messages: list[JSON]) -> None:
    """Wait until the provider has all of the messages, and check that it has no message twice."""
    ids = {message["id"] for message in messages}

    async def all_arrived() -> bool:
        return {sent["idempotency_key"] for sent in await stack.sms.messages()} >= ids

    await eventually(all_arrived, within=90)
    keys = [sent["idempotency_key"] for sent in await stack.sms.messages()]
    assert len(keys) == len(set(keys))


async def stored(stack: Stack, messages: list[JSON]) -> None:
    await asyncio.gather(*(stack.message_becomes(message["id"], "sent") for message in messages))


async def send_patiently(stack: Stack, body: str) -> JSON:
    """Send like a careful client: with an idempotency key, and repeatedly until the message is accepted."""
    payload = {"from": "+12016661234", "to": "+18045551234", "type": "sms", "body": body}

    async def attempt() -> JSON | None:
        try:
            response = await stack.post("/api/messages/sms", payload, **{"Idempotency-Key": body})
        except httpx.TransportError:
            return None
        message: JSON | None = response.json() if response.status_code == 202 else None
        return message

    message = await eventually(attempt)
    assert message is not None
    return message


@pytest.fixture
async def own_postgres(tmp_path: Path) -> AsyncIterator[infrastructure.Postgres]:
    async with infrastructure.postgres(tmp_path / "servers") as server:
        yield server


@pytest.fixture
async def own_nats(tmp_path: Path) -> AsyncIterator[infrastructure.Server]:
    async with infrastructure.nats(tmp_path / "servers") as server:
        client = await nats_client.connect(server.url)
        await provision(client.jetstream())
        await client.close()
        yield server


@pytest.mark.parametrize("hanging", [False, True], ids=["stopped", "hanging"])
async def test_messages_are_accepted_and_sent_without_postgresql(
    tmp_path: Path, own_postgres: infrastructure.Postgres, nats_url: str, *, hanging: bool
) -> None:
    database_url = sqlalchemy_url(own_postgres.server.url)
    await asyncio.to_thread(alembic, database_url, "upgrade", "head")
    async with running_stack(tmp_path, database_url=database_url, nats_url=nats_url) as stack:
        before = await stack.send(body="before")
        await stack.messages_of(before["conversation_key"], 1)
        await (own_postgres.server.pause() if hanging else own_postgres.server.kill())

        sent = [await stack.send(body=f"meanwhile {number}") for number in range(5)]
        inbound = await stack.sms.inbound(body="meanwhile")
        assert inbound.json()["status"] == 200
        await sent_once(stack, sent)
        read = await stack.get("/api/conversations")
        assert read.status_code == 503
        assert read.headers["Retry-After"]
        assert read.headers["Content-Type"] == "application/problem+json"

        await (own_postgres.server.resume() if hanging else own_postgres.server.start())
        await stack.messages_of(before["conversation_key"], 6)
        await stored(stack, sent)


async def test_services_stop_in_time_while_postgresql_hangs(
    tmp_path: Path, own_postgres: infrastructure.Postgres, nats_url: str
) -> None:
    database_url = sqlalchemy_url(own_postgres.server.url)
    await asyncio.to_thread(alembic, database_url, "upgrade", "head")
    async with running_stack(tmp_path, database_url=database_url, nats_url=nats_url) as stack:
        sent = await stack.send()
        await stack.messages_of(sent["conversation_key"], 1)
        await own_postgres.server.pause()
        await stack.send()
        async with asyncio.timeout(10):
            await asyncio.gather(*(stack.processes[name].end() for name in ("gateway", "ingest", "sender")))
        await own_postgres.server.resume()


@pytest.mark.parametrize("hanging", [False, True], ids=["stopped", "hanging"])
async def test_sends_without_nats_are_503_and_are_sent_once_when_repeated(
    tmp_path: Path, database_url: str, own_nats: infrastructure.Server, *, hanging: bool
) -> None:
    async with running_stack(tmp_path, database_url=database_url, nats_url=own_nats.url) as stack:
        # It is in another conversation than the next message: when NATS is killed, it may forget the
        # acknowledgement of this message, and deliver it again after 15 seconds.
        before = await stack.send(to="+18045550000")
        await stack.message_becomes(before["id"], "sent")
        await (own_nats.pause() if hanging else own_nats.kill())
        payload = {"from": "+12016661234", "to": "+18045551234", "type": "sms", "body": "meanwhile"}

        async def refused() -> bool:
            response = await stack.post("/api/messages/sms", payload, **{"Idempotency-Key": "meanwhile"})
            return response.status_code == 503 and "Retry-After" in response.headers

        await eventually(refused)
        await (own_nats.resume() if hanging else own_nats.start())
        message = await send_patiently(stack, "meanwhile")
        await sent_once(stack, [before, message])
        await stored(stack, [message])
        assert len(await stack.messages_of(message["conversation_key"], 1)) == 1
