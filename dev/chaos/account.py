"""The account: what became of everything that was accepted, by what the providers and the database have."""

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

_ASK_EVERY = 1.0
_LOOK_SECONDS = 60
_SCHEDULES = "delayed.wait.*"
_STATUS = """
    SELECT DISTINCT ON (message_id) message_id, status FROM message_history
    WHERE message_id = ANY($1) ORDER BY message_id, generation DESC, precedence DESC, occurred_at
"""
_UNBALANCED = """
    SELECT count(*) FROM conversations AS c
    WHERE message_count <> (SELECT count(*) FROM messages AS m WHERE m.conversation_id = c.id)
"""
_NOT_NOW = (
    nats.errors.Error,
    nats.js.errors.Error,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    httpx.HTTPError,
    OSError,
    TimeoutError,
)


@dataclass(frozen=True, slots=True)
class Taken:
    """A message at a provider.

    Attributes:
        name: its text.
        id: its idempotency key, which is the message's id; None where the provider knows no such keys.
    """

    name: str
    id: str | None
    at: datetime


@dataclass(frozen=True)
class Findings:
    """What is found outside.

    Attributes:
        taken: what each provider has, in the order in which it came.
        stored: ids of the messages in the database.
        status: of each outbound message there.
        dead: why messages were given up, by message id.
        letters: all dead letters, their reasons by their ids.
        letters_of_messages: ids of those that are of a message.
        behind: consumers that have not finished, with how many messages, and what is scheduled for later.
        unbalanced: conversations whose count of messages is wrong.
    """

    taken: Mapping[str, Sequence[Taken]] = field(default_factory=dict)
    stored: frozenset[str] = frozenset()
    status: Mapping[str, str] = field(default_factory=dict)
    dead: Mapping[str, str] = field(default_factory=dict)
    letters: Mapping[str, str] = field(default_factory=dict)
    letters_of_messages: frozenset[str] = frozenset()
    behind: Mapping[str, int] = field(default_factory=dict)
    unbalanced: int = 0


@dataclass(frozen=True)
class Line:
    """The account of one kind of messages; `asked` is how many there were, answered or not."""

    name: str
    asked: int
    accepted: int
    persisted: int
    sent_once: int
    dead: int
    expired: int
    missing: Sequence[Item]
    twice: Sequence[Item]


async def settle(stack: Stack, record: Record, *, seconds: float) -> Findings:
    """Wait until all that was accepted came to its end, and everything in the streams was dealt with.

    Args:
        stack: where to look.
        record: what was accepted.
        seconds: after which it is told how far it has come.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        is_last = loop.time() > deadline
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                # All the rest costs more the more there is, and is not settled before.
                behind = await _behind(stack)
                if is_last or not behind:
                    findings = await _look(stack, record, behind)
                    if is_last or _is_settled(record, findings):
                        return findings
        except _NOT_NOW:
            if is_last:
                raise
        await asyncio.sleep(_ASK_EVERY)


def lines(record: Record, findings: Findings) -> list[Line]:
    return [
        *(_outbound(channel, record.sends, findings) for channel in CHANNELS),
        *(_inbound(channel, record.inbound, findings) for channel in CHANNELS),
    ]


def reasons(record: Record, findings: Findings) -> Counter[str]:
    """Count why messages of the load were given up."""
    return Counter(findings.dead[item.id] for item in record.sends if item.id and item.id in findings.dead)


async def repeated_keys(stack: Stack) -> int:
    """Count the requests that providers recognised as repetitions, since they were started."""
    answers = [await stack.http.get(f"{url}/mock/stats") for url in stack.provider_urls.values()]
    return sum(int(answer.raise_for_status().json()["repeated_keys"]) for answer in answers)


async def letters(stack: Stack) -> frozenset[str]:
    """List the ids of all dead letters in the database."""
    connection = await asyncpg.connect(stack.database_url, timeout=5)
    try:
        rows = await connection.fetch("SELECT id FROM dead_letters")
    finally:
        connection.terminate()
    return frozenset(str(row["id"]) for row in rows)


def letter_of(stream: str, sequence: int) -> str:
    """Tell the id of the dead letter of what lies in a stream and could not be read."""
    return str(dead_letter_id(stream, sequence))


def _is_settled(record: Record, findings: Findings) -> bool:
    return not findings.behind and not any(line.missing for line in lines(record, findings))


def _outbound(channel: str, items: Iterable[Item], findings: Findings) -> Line:
    asked = [item for item in items if item.channel == channel]
    accepted = [item for item in asked if item.id]
    taken = findings.taken.get(channel, ())
    times = Counter(each.name for each in taken)
    came_as = {each.name: each.id for each in taken}
    persisted = [item for item in accepted if item.id in findings.stored]

    def has_ended(item: Item) -> bool:
        """Whether the database tells the end that the message came to."""
        status = findings.status.get(str(item.id))
        if item.id in findings.dead:
            return status == "failed"
        if status == "expired":
            return True
        came = times[item.name] > 0 and came_as[item.name] in {item.id, None}
        return came and status in {"sent", "delivered"}

    return Line(
        name=f"{channel} out",
        asked=len(asked),
        accepted=len(accepted),
        persisted=len(persisted),
        sent_once=sum(times[item.name] == 1 for item in accepted),
        dead=sum(item.id in findings.dead for item in accepted),
        expired=sum(findings.status.get(str(item.id)) == "expired" for item in accepted),
        missing=[item for item in accepted if item.id not in findings.stored or not has_ended(item)],
        twice=[item for item in asked if times[item.name] > 1],
    )


def _inbound(channel: str, items: Iterable[Item], findings: Findings) -> Line:
    asked = [item for item in items if item.channel == channel]
    accepted = [item for item in asked if item.id]
    missing = [item for item in accepted if item.id not in findings.stored]
    return Line(
        name=f"{channel} in",
        asked=len(asked),
        accepted=len(accepted),
        persisted=len(accepted) - len(missing),
        sent_once=0,
        dead=0,
        expired=0,
        missing=missing,
        twice=[],
    )


async def _look(stack: Stack, record: Record, behind: Mapping[str, int]) -> Findings:
    """Look at all of it, after what lags `behind`: what came in meanwhile is in here."""
    ids = [UUID(item.id) for item in (*record.sends, *record.inbound) if item.id]
    connection = await asyncpg.connect(stack.database_url, timeout=5)
    try:
        stored = await connection.fetch("SELECT id FROM messages WHERE id = ANY($1)", ids)
        status = await connection.fetch(_STATUS, ids)
        letters = await connection.fetch("SELECT id, message_id, reason FROM dead_letters")
        unbalanced = await connection.fetchval(_UNBALANCED)
    finally:
        connection.terminate()
    return Findings(
        taken={channel: await _taken(stack, channel) for channel in CHANNELS},
        stored=frozenset(str(row["id"]) for row in stored),
        status={str(row["message_id"]): row["status"] for row in status},
        dead={str(row["message_id"]): row["reason"] for row in letters if row["message_id"]},
        letters={str(row["id"]): row["reason"] for row in letters},
        letters_of_messages=frozenset(str(row["id"]) for row in letters if row["message_id"]),
        behind=behind,
        unbalanced=unbalanced,
    )


async def _behind(stack: Stack) -> dict[str, int]:
    async with connected(stack) as client:
        jetstream = client.jetstream(timeout=5)
        infos = [info for stream in Stream for info in await jetstream.consumers_info(stream)]
        is_one_scheduled = await _is_one_scheduled(jetstream)
    left = {info.name: (info.num_pending or 0) + (info.num_ack_pending or 0) for info in infos}
    left["schedules"] = int(is_one_scheduled)
    return {name: count for name, count in left.items() if count}


async def _is_one_scheduled(jetstream: JetStreamContext) -> bool:
    """Whether a step is still to come, which might be one too many."""
    try:
        await jetstream.get_msg(Stream.DELAYED, seq=1, subject=_SCHEDULES, next=True)
    except nats.js.errors.NotFoundError:
        return False
    return True


async def _taken(stack: Stack, channel: str) -> list[Taken]:
    answer = await stack.http.get(f"{stack.provider_urls[channel]}/mock/messages")
    items: list[dict[str, Any]] = answer.raise_for_status().json()["items"]
    return [
        Taken(_text_of(item["payload"]), item["idempotency_key"], datetime.fromisoformat(item["accepted_at"]))
        for item in items
    ]


def _text_of(payload: Mapping[str, Any]) -> str:
    """Read the body of a message as the generic providers, Twilio or SendGrid got it."""
    content = payload.get("content")
    return str(content[0]["value"] if content else payload.get("Body", payload.get("body")))
