"""Reads stored messages, several in one request (direct get, ADR-31 of NATS)."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from shared.errors import BusUnavailableError

_MAX_BYTES = 4 * 1024 * 1024
"""The size at which the server truncates a response; it disconnects clients with 64 MB of pending data."""

_END, _NOT_FOUND = "204", "404"


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message of a stream, with its sequence and the time at which it was stored."""

    subject: str
    sequence: int
    stored_at: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """Messages of a stream; `is_complete` is false if the server has omitted some."""

    messages: list[StoredMessage]
    is_complete: bool = True


async def direct_get(client: Client, stream: str, request: Mapping[str, object]) -> Answer:
    """Return the messages that a request selects.

    Raises:
        BusUnavailableError: the server cannot serve the request.
        nats.errors.Error, OSError: there is no connection.
    """
    received: asyncio.Queue[Msg] = asyncio.Queue()
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox, cb=received.put)
    try:
        is_one = "last_by_subj" in request  # such a response has no end marker
        payload = request if is_one else {**request, "max_bytes": _MAX_BYTES}
        await client.publish(f"$JS.API.DIRECT.GET.{stream}", json.dumps(payload).encode(), reply=inbox)
        messages: list[StoredMessage] = []
        while not (is_one and messages):
            msg = await received.get()
            headers = msg.headers or {}
            if "Status" in headers:
                return Answer(messages, _is_complete(stream, request, headers))
            messages.append(_stored(headers, msg.data))
        return Answer(messages)
    finally:
        with suppress(nats.errors.Error, OSError):
            await subscription.unsubscribe()


def _is_complete(stream: str, request: Mapping[str, object], headers: Mapping[str, str]) -> bool:
    status, description = headers["Status"], headers.get("Description", "")
    if status == _END:
        return headers.get("Nats-Num-Pending") == "0"
    if status == _NOT_FOUND:
        # With any other description, the server has selected a message that was replaced before it was read,
        # and omits the rest of the response.
        return "multi_last" not in request or description == "No Results"
    raise BusUnavailableError(f"{stream}: {status} {description}")


def _stored(headers: Mapping[str, str], payload: bytes) -> StoredMessage:
    return StoredMessage(
        headers["Nats-Subject"], int(headers["Nats-Sequence"]), headers["Nats-Time-Stamp"], payload
    )
