"""Replaying the streams changes nothing, and the database can be rebuilt from them."""

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from shared.bus.topology import CONSUMERS
from tests.documents import ROOT
from tests.e2e.stack import Stack
from tests.waiting import eventually

Tables = dict[str, list[str]]


async def tables(database_url: str) -> Tables:
    """Return every row of every table, as text."""
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    try:
        names = await connection.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename"
        )
        return {
            name: sorted(row[0] for row in await connection.fetch(f'SELECT t::text FROM "{name}" t'))  # noqa: S608
            for (name,) in names
        }
    finally:
        await connection.close()


def alembic(database_url: str, *command: str) -> None:
    environment = {**os.environ, "DATABASE_URL": database_url}
    subprocess.run([sys.executable, "-m", "alembic", *command], cwd=ROOT, env=environment, check=True)


async def exchange(stack: Stack) -> list[dict[str, Any]]:
    """Take messages through everything that can happen to them; return their final states."""
    await stack.sms.behave(status=500, times=2)
    sent = [await stack.send(body=f"number {number}") for number in range(5)]
    done = [await stack.message_becomes(message["id"], "sent") for message in sent]
    await stack.sms.behave(status=400, times=1)
    refused = await stack.message_becomes((await stack.send(body="refused"))["id"], "failed")
    await stack.sms.receipt(provider_message_id=done[0]["provider_message_id"], status="delivered")
    await stack.message_becomes(done[0]["id"], "delivered")
    inbound = (await stack.sms.inbound(body="inbound")).json()["response"]
    await stack.message_becomes(inbound["id"], "received")
    [letter] = await stack.items("/api/dead-letters")
    replay = await stack.post(f"/api/dead-letters/{letter['id']}/replay", None)
    assert replay.status_code == 202, replay.text
    await stack.message_becomes(refused["id"], "sent")
    canceled = await cancel(stack)
    await opt_out_and_in(stack)
    ids = [*(message["id"] for message in sent), refused["id"], inbound["id"], canceled]
    return [(await stack.get(f"/api/messages/{id_}")).json() for id_ in ids]


async def cancel(stack: Stack) -> str:
    """Cancel a scheduled message; return its id."""
    in_an_hour = datetime.now(UTC) + timedelta(hours=1)
    scheduled = await stack.send(body="later", send_at=in_an_hour.isoformat())
    assert scheduled["status"] == "scheduled"
    id_: str = scheduled["id"]
    await stack.message_becomes(id_, "scheduled")
    assert [each["id"] for each in await stack.items("/api/messages", status="scheduled")] == [id_]
    response = await stack.client.delete(f"{stack.gateway_url}/api/messages/{id_}")
    assert (response.status_code, response.json()["status"]) == (200, "canceled")
    await stack.message_becomes(id_, "canceled")
    assert await stack.items("/api/messages", status="scheduled") == []
    return id_


async def opt_out_and_in(stack: Stack) -> None:
    """Opt two recipients out and one of them in again, and wait until this is stored."""

    async def is_stored() -> bool:
        found = await stack.items("/api/suppressions")
        return [each["address"] for each in found] == ["+18045550002"]

    await stack.sms.inbound(**{"from": "+18045550001", "body": "stop"})
    await stack.sms.inbound(**{"from": "+18045550001", "body": "start"})
    await stack.sms.inbound(**{"from": "+18045550002", "body": "stop"})
    await eventually(is_stored)


def without_numbers(found: Any) -> Any:  # noqa: ANN401 - any JSON
    """Remove the numbers of conversations, which are assigned anew when the database is rebuilt."""
    if isinstance(found, list):
        return [without_numbers(each) for each in found]
    if not isinstance(found, dict):
        return found
    kept = {key: without_numbers(value) for key, value in found.items() if key != "conversation_id"}
    if "participants" in kept:
        del kept["id"]
    return kept


async def until_idle(jetstream: JetStreamContext, database_url: str) -> None:
    """Wait until every consumer has processed its messages and the notifications about them are published."""

    async def idle() -> bool:
        # Senders first, because they publish events that ingest processes.
        for each in reversed(CONSUMERS):
            info = await jetstream.consumer_info(each.stream, each.name)
            if info.num_pending or info.num_ack_pending:
                return False
        # Last, because consumers add rows until they are idle.
        rows: int = await connection.fetchval("SELECT count(*) FROM notification_outbox")
        return rows == 0

    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    try:
        await eventually(idle)
    finally:
        await connection.close()


async def test_resetting_every_consumer_sends_nothing_twice_and_changes_no_row(
    stack: Stack, jetstream: JetStreamContext, database_url: str
) -> None:
    await exchange(stack)
    await until_idle(jetstream, database_url)
    before, requests = await tables(database_url), await stack.sms.stats()
    for consumer in CONSUMERS:
        await jetstream.reset_consumer(consumer.stream, consumer.name, 1)
    await until_idle(jetstream, database_url)
    for consumer in CONSUMERS:
        await jetstream.reset_consumer(consumer.stream, consumer.name, 3)
    await until_idle(jetstream, database_url)
    assert await tables(database_url) == before
    assert await stack.sms.stats() == requests


async def test_republishing_everything_changes_nothing_either(
    stack: Stack, jetstream: JetStreamContext, database_url: str
) -> None:
    """Publish the bodies without headers, like `nats pub` with the output of `nats sub --dump`."""
    await exchange(stack)
    await until_idle(jetstream, database_url)
    before, requests = await tables(database_url), await stack.sms.stats()
    for stream in ("INBOUND", "OUTBOUND", "EVENTS", "DEADLETTER"):
        last = (await jetstream.stream_info(stream)).state.last_seq
        for sequence in range(1, last + 1):
            try:
                message = await jetstream.get_msg(stream, sequence)
            except NotFoundError:
                continue
            await jetstream.publish(str(message.subject), message.data or b"")
    await until_idle(jetstream, database_url)
    assert await tables(database_url) == before
    assert await stack.sms.stats() == requests


async def test_a_lost_database_is_rebuilt_from_the_streams(
    stack: Stack, jetstream: JetStreamContext, database_url: str
) -> None:
    messages = await exchange(stack)
    await until_idle(jetstream, database_url)
    conversations = await stack.items("/api/conversations")
    suppressions = await stack.items("/api/suppressions")
    await asyncio.to_thread(alembic, database_url, "downgrade", "base")
    await asyncio.to_thread(alembic, database_url, "upgrade", "head")
    for consumer in CONSUMERS:
        if consumer.name.startswith("ingest-"):
            await jetstream.reset_consumer(consumer.stream, consumer.name, 1)

    async def all_are_back() -> bool:
        found = await stack.items("/api/conversations")
        return [each["message_count"] for each in found] == [each["message_count"] for each in conversations]

    await eventually(all_are_back)
    await until_idle(jetstream, database_url)
    found = [(await stack.get(f"/api/messages/{message['id']}")).json() for message in messages]
    assert without_numbers(found) == without_numbers(messages)
    assert without_numbers(await stack.items("/api/conversations")) == without_numbers(conversations)
    assert await stack.items("/api/suppressions") == suppressions
