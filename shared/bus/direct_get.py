"""Reading several messages of a stream in one request (direct get, ADR-31 of NATS)."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import nats.errors
from nats.aio.msg import Msg

from shared.bus.client import REQUEST_TIMEOUT, Bus
from shared.errors import BusUnavailableError

_NOT_FOUND = "404"


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message of a stream, with its sequence and the time at which it was stored."""

    subject: str
    sequence: int
    stored_at: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Result:
    """Messages of a stream; `is_complete` is false if the server has left some out."""

    messages: list[StoredMessage]
    is_complete: bool


async def direct_get(
    bus: Bus, stream: str, request: Mapping[str, Any], *, answers: int | None = None
) -> Result:
    """Return the messages that `request` selects.

    Args:
        bus: the connection.
        stream: the stream.
        request: the request.
        answers: the number of messages after which no more are expected; without it, the server ends the
            answer.

    Raises:
        BusUnavailableError: NATS does not answer.
    """
    client = bus.client
    received: asyncio.Queue[Msg] = asyncio.Queue()
    inbox = client.new_inbox()
    messages: list[StoredMessage] = []
    status: str | None = None
    try:
        subscription = await client.subscribe(inbox, cb=received.put)
        try:
            await client.publish(f"$JS.API.DIRECT.GET.{stream}", json.dumps(request).encode(), reply=inbox)
            async with asyncio.timeout(REQUEST_TIMEOUT):
                while len(messages) != answers:
                    answer = await received.get()
                    headers = answer.headers or {}
                    if status := headers.get("Status"):
                        break
                    messages.append(_stored(headers, answer.data))
        finally:
            await subscription.unsubscribe()
    except (nats.errors.Error, TimeoutError, OSError) as exc:
        raise BusUnavailableError(f"{stream}: {exc!r}") from exc
    is_complete = status in {None, _NOT_FOUND} or headers.get("Nats-Num-Pending", "0") == "0"
    return Result(messages, is_complete)


def _stored(headers: Mapping[str, str], payload: bytes) -> StoredMessage:
    return StoredMessage(
        headers["Nats-Subject"], int(headers["Nats-Sequence"]), headers["Nats-Time-Stamp"], payload
    )
