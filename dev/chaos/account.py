"""The account of all messages, from the contents of the providers, the database and the streams."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import nats.errors
import nats.js.errors
from nats.js import JetStreamContext

from dev.chaos.faults import connected
from dev.chaos.load import CHANNELS, Item, Record
from dev.chaos.stack import Stack
from shared.bus.topology import Stream
from shared.ids import dead_letter_id

_POLL_INTERVAL = 1.0
_CHECK_SECONDS = 60
_SCHEDULES = "delayed.wait.*"
_STATUS = """
    SELECT DISTINCT ON (message_id) message_id, status FROM message_history
    WHERE message_id = ANY($1)
    ORDER BY message_id, generation DESC, precedence DESC, attempt DESC, occurred_at DESC
"""
_MOVED = """
    SELECT DISTINCT message_id FROM message_history
    WHERE message_id = ANY($1) AND status IN ('retrying', 'scheduled')
"""
_MISCOUNTED = """
    SELECT count(*) FROM conversations AS c
    WHERE message_count <> (SELECT count(*) FROM messages AS m WHERE m.conversation_id = c.id)
"""
_UNAVAILABLE = (
    nats.errors.Error,
    nats.js.errors.Error,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    httpx.HTTPError,
    OSError,
    TimeoutError,
)


@dataclass(frozen=True, slots=True)
class SentMessage:
    """A message that a provider has accepted.

    Attributes:
        name: its text, which identifies it.
        id: its idempotency key, which is the message's id; None if the provider knows no such keys.
        at: when the provider accepted it.
    """

    name: str
    id: str | None
    at: datetime


@dataclass(frozen=True)
class Findings:
    """The contents of the providers, the database and the streams.

    Attributes:
        sent: the messages that the provider of each channel has accepted, in order.
        stored: ids of the messages in the database.
        status: the status of each message there, by its id.
        moved: ids of the messages that were retried or deferred.
        failures: the reasons of the dead letters that belong to messages, by message id.
        dead_letters: the reasons of all dead letters, by their ids.
        dead_letters_of_messages: ids of the dead letters that belong to messages.
        backlog: the consumers that have not finished, and the schedules, each with its number of messages.
        miscounted: number of conversations whose count of messages is wrong.
    """

    sent: Mapping[str, Sequence[SentMessage]] = field(default_factory=dict)
    stored: frozenset[str] = frozenset()
    status: Mapping[str, str] = field(default_factory=dict)
    moved: frozenset[str] = frozenset()
    failures: Mapping[str, str] = field(default_factory=dict)
    dead_letters: Mapping[str, str] = field(default_factory=dict)
    dead_letters_of_messages: frozenset[str] = frozenset()
    backlog: Mapping[str, int] = field(default_factory=dict)
    miscounted: int = 0


@dataclass(frozen=True)
class Line:
    """The account of one kind of messages.

    Attributes:
        requested: messages that clients or providers tried to deliver to the gateway.
        accepted: messages that the gateway accepted.
        missing: accepted messages that are not stored, or that have not reached a final status.
        duplicates: messages that a provider has accepted more than once.
    """

    name: str
    requested: int
    accepted: int
    stored: int
    sent_once: int
    dead_lettered: int
    expired: int
    missing: Sequence[Item]
    duplicates: Sequence[Item]


async def settle(stack: Stack, record: Record, *, seconds: float) -> Findings:
    """Wait until every accepted message has reached a final status and the streams have been read.

    Args:
        stack: the stack.
        record: the requests and their answers.
        seconds: how long to wait; after that, the findings are returned as they are.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        is_last = loop.time() > deadline
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                # The other checks take longer the more messages there are, so they wait for the backlog.
                backlog = await _backlog(stack)
                if is_last or not backlog:
                    findings = await _find(stack, record, backlog)
                    if is_last or _is_settled(record, findings):
                        return findings
        except _UNAVAILABLE:
            if is_last:
                raise
        await asyncio.sleep(_POLL_INTERVAL)


def lines(record: Record, findings: Findings) -> list[Line]:
    return [
        *(_outbound(channel, record.sends, findings) for channel in CHANNELS),
        *(_inbound(channel, record.inbound, findings) for channel in CHANNELS),
    ]


def failures(record: Record, findings: Findings) -> Counter[str]:
    """Count the dead-lettered messages of the load by reason."""
    return Counter(
        findings.failures[item.id] for item in record.sends if item.id and item.id in findings.failures
    )


async def repeated_keys(stack: Stack) -> int:
    """Count the requests that the providers recognised as repetitions, since they were started."""
    responses = [await stack.http.get(f"{url}/mock/stats") for url in stack.provider_urls.values()]
    return sum(int(response.raise_for_status().json()["repeated_keys"]) for response in responses)


async def accepted_by_providers(stack: Stack) -> Mapping[str, int]:
    """Count the messages that the provider of each channel has accepted since it was started."""
    counts = {}
    for channel, url in stack.provider_urls.items():
        response = await stack.http.get(f"{url}/mock/stats")
        counts[channel] = int(response.raise_for_status().json()["accepted"])
    return counts


async def dead_letters(stack: Stack) -> frozenset[str]:
    """Return the ids of all dead letters in the database."""
    connection = await asyncpg.connect(stack.database_url, timeout=5)
    try:
        rows = await connection.fetch("SELECT id FROM dead_letters")
    finally:
        connection.terminate()
    return frozenset(str(row["id"]) for row in rows)


async def stored(stack: Stack) -> int:
    """Count the messages in the database."""
    connection = await asyncpg.connect(stack.database_url, timeout=5)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM messages"))
    finally:
        connection.terminate()


def id_of_unreadable(stream: str, sequence: int) -> str:
    """Return the id of the dead letter of a message that could not be read."""
    return str(dead_letter_id(stream, sequence))


def _is_settled(record: Record, findings: Findings) -> bool:
    return not findings.backlog and not any(line.missing for line in lines(record, findings))


def _outbound(channel: str, items: Iterable[Item], findings: Findings) -> Line:
    requested = [item for item in items if item.channel == channel]
    accepted = [item for item in requested if item.id]
    sent = findings.sent.get(channel, ())
    times_sent = Counter(each.name for each in sent)
    sent_as = {each.name: each.id for each in sent}

    def is_final(item: Item) -> bool:
        """Return whether the status in the database agrees with what happened to the message."""
        status = findings.status.get(str(item.id))
        if status in {"sent", "delivered"}:  # perhaps after it was given up in doubt
            return times_sent[item.name] > 0 and sent_as[item.name] in {item.id, None}
        return status == "expired" or (status == "failed" and item.id in findings.failures)

    return Line(
        name=f"{channel} out",
        requested=len(requested),
        accepted=len(accepted),
        stored=sum(item.id in findings.stored for item in accepted),
        sent_once=sum(times_sent[item.name] == 1 for item in accepted),
        dead_lettered=sum(item.id in findings.failures for item in accepted),
        expired=sum(findings.status.get(str(item.id)) == "expired" for item in accepted),
        missing=[item for item in accepted if item.id not in findings.stored or not is_final(item)],
        duplicates=[item for item in requested if times_sent[item.name] > 1],
    )


def _inbound(channel: str, items: Iterable[Item], findings: Findings) -> Line:
    requested = [item for item in items if item.channel == channel]
    accepted = [item for item in requested if item.id]
    missing = [item for item in accepted if item.id not in findings.stored]
    return Line(
        name=f"{channel} in",
        requested=len(requested),
        accepted=len(accepted),
        stored=len(accepted) - len(missing),
        sent_once=0,
        dead_lettered=0,
        expired=0,
        missing=missing,
        duplicates=[],
    )


async def _find(stack: Stack, record: Record, backlog: Mapping[str, int]) -> Findings:
    """Collect the findings, after `backlog` was read: they include what has happened in the meantime."""
    ids = [UUID(item.id) for item in (*record.sends, *record.inbound) if item.id]
    connection = await asyncpg.connect(stack.database_url, timeout=5)
    try:
        stored = await connection.fetch("SELECT id FROM messages WHERE id = ANY($1)", ids)
        status = await connection.fetch(_STATUS, ids)
        moved = await connection.fetch(_MOVED, ids)
        rows = await connection.fetch("SELECT id, message_id, reason FROM dead_letters")
        miscounted = await connection.fetchval(_MISCOUNTED)
    finally:
        connection.terminate()
    return Findings(
        sent={channel: await _sent(stack, channel) for channel in CHANNELS},
        stored=frozenset(str(row["id"]) for row in stored),
        status={str(row["message_id"]): row["status"] for row in status},
        moved=frozenset(str(row["message_id"]) for row in moved),
        failures={str(row["message_id"]): row["reason"] for row in rows if row["message_id"]},
        dead_letters={str(row["id"]): row["reason"] for row in rows},
        dead_letters_of_messages=frozenset(str(row["id"]) for row in rows if row["message_id"]),
        backlog=backlog,
        miscounted=miscounted,
    )


async def _backlog(stack: Stack) -> dict[str, int]:
    async with connected(stack) as client:
        jetstream = client.jetstream(timeout=5)
        infos = [info for stream in Stream for info in await jetstream.consumers_info(stream)]
        has_schedules = await _has_schedules(jetstream)
    waiting = {info.name: (info.num_pending or 0) + (info.num_ack_pending or 0) for info in infos}
    waiting["schedules"] = int(has_schedules)
    return {name: count for name, count in waiting.items() if count}


async def _has_schedules(jetstream: JetStreamContext) -> bool:
    """Return whether a step is still scheduled, which could send a message once too often."""
    try:
        await jetstream.get_msg(Stream.DELAYED, seq=1, subject=_SCHEDULES, next=True)
    except nats.js.errors.NotFoundError:
        return False
    return True


async def _sent(stack: Stack, channel: str) -> list[SentMessage]:
    response = await stack.http.get(f"{stack.provider_urls[channel]}/mock/messages")
    items: list[dict[str, Any]] = response.raise_for_status().json()["items"]
    return [
        SentMessage(
            name=_text_of(item["payload"]),
            id=item["idempotency_key"],
            at=datetime.fromisoformat(item["accepted_at"]),
        )
        for item in items
    ]


def _text_of(payload: Mapping[str, Any]) -> str:
    """Return the text of a message from the payload of the generic API, Twilio's or SendGrid's."""
    content = payload.get("content")
    return str(content[0]["value"] if content else payload.get("Body", payload.get("body")))
