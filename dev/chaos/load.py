"""The load: clients that repeat a request until it is accepted, and providers that repeat their webhooks.

The body of each message is a unique name, by which the message is found at the provider and in the database,
whatever ids it was given on the way.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
import httpx

from dev.chaos.stack import Stack

CHANNELS = ("sms", "email")

_CLIENTS = 4
_CONVERSATIONS = 5
_PROVIDERS = 2
_REPEAT_EVERY = 10
"""One in this many messages is requested again although it was accepted."""

_BURST_CLIENTS = 24
_BURST_CONVERSATIONS = 500
_BURST_FROM = 1_000
_FLOOD_FROM = 2_000
_RESPONSE_TIMEOUT = 10.0
"""Seconds after which a client stops waiting: twice the time that the API may take."""

_RETRY_PAUSE = 0.25
_RETRY_SECONDS = 60.0
_READ_INTERVAL = 0.4
_TIMESTAMP = "2024-11-01T14:00:00Z"
_ACCEPTED = {"send": {202}, "flood": {202}, "webhook": {200}, "read": {200, 404}}
_UNAVAILABLE = 503
_NO_GATEWAY = 502


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one request.

    Attributes:
        kind: `send`, `flood`, `webhook` or `read`.
        at: when the request was made, by the clock of `time.monotonic`.
        seconds: the time until the response came or the connection broke.
        status: None if there was no response.
        retry_after: whether the response has a `Retry-After`.
    """

    kind: str
    at: float
    seconds: float
    status: int | None
    retry_after: bool

    @property
    def is_accepted(self) -> bool:
        return self.status in _ACCEPTED[self.kind]

    @property
    def is_expected(self) -> bool:
        """Whether it is accepted, or refused for now, or there was no response."""
        return self.is_accepted or self.status is None or (self.status == _UNAVAILABLE and self.retry_after)


@dataclass(slots=True)
class Item:
    """A message of either direction.

    Attributes:
        name: its text, which no other message has; of an inbound message it is also the provider's id.
        place: its conversation, and its number in it.
        id: the id in the gateway's response; None until the message is accepted.
        accepted_at: when the message was accepted.
    """

    name: str
    channel: str
    place: tuple[str, int]
    id: str | None = None
    accepted_at: datetime | None = None


@dataclass
class Record:
    """All requests and answers.

    Attributes:
        differing: names of messages that got a different id when they were requested again with the same key.
    """

    sends: list[Item] = field(default_factory=list)
    inbound: list[Item] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)

    def since(self, start: float, *kinds: str) -> list[Answer]:
        return [answer for answer in self.answers if answer.at >= start and answer.kind in kinds]


class Load:
    """Makes requests until it is stopped.

    Args:
        stack: the stack.
        http: the HTTP client.
        tag: the beginning of all names.
        rate: messages per second. Three quarters are sent, and one quarter is received.
    """

    def __init__(self, stack: Stack, http: httpx.AsyncClient, tag: str, *, rate: float) -> None:
        self.record = Record()
        self._stack = stack
        self._http = http
        self._tag = tag
        self._accepted: dict[str, str] = {}
        self._stopping = asyncio.Event()
        self._bursts = 0
        self._send_interval = _CLIENTS * len(CHANNELS) / (rate * 3 / 4)
        self._receive_interval = _PROVIDERS * len(CHANNELS) / (rate / 4)

    def stop(self) -> None:
        """Create no more messages; existing ones are still repeated until they are accepted."""
        self._stopping.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for channel in CHANNELS:
                for number in range(_CLIENTS):
                    group.create_task(self._send(channel, number))
                for number in range(_PROVIDERS):
                    group.create_task(self._receive(channel, number))
            group.create_task(self._read())

    async def burst(self, channel: str, count: int, *, conversations: int = _BURST_CONVERSATIONS) -> None:
        """Send `count` messages as fast as they are accepted, each conversation in order.

        Args:
            channel: the channel.
            count: the number of messages.
            conversations: the number of conversations, which are the same in every burst.
        """
        clients = min(conversations, _BURST_CLIENTS)
        first = self._bursts
        self._bursts += count

        async def client(offset: int) -> None:
            for number in range(first, first + count):
                conversation = number % conversations
                if conversation % clients == offset:
                    name = f"{self._tag}-{channel}-burst-{number}"
                    await self._send_one(channel, name, _BURST_FROM + conversation, number)

        async with asyncio.TaskGroup() as group:
            for offset in range(clients):
                group.create_task(client(offset))

    async def send(self, channel: str, *, key: str | None = None) -> Item:
        """Send a single message, and return it once it is accepted.

        Args:
            channel: the channel.
            key: its idempotency key; by default, it has its own.
        """
        self._bursts += 1
        name = f"{self._tag}-{channel}-single-{self._bursts}"
        return await self._send_one(channel, name, _BURST_FROM, self._bursts, key)

    async def flood(self, channel: str, *, clients: int, seconds: float) -> None:
        """Make requests with this many clients at the same time, none of which is repeated.

        The answers are of the kind `flood`. Only messages that were accepted become a part of the account.
        """
        deadline = time.monotonic() + seconds
        connector = aiohttp.TCPConnector(limit=0)  # httpx would be slower than the gateway
        timeout = aiohttp.ClientTimeout(total=_RESPONSE_TIMEOUT)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:

            async def client(number: int) -> None:
                request = 0
                while time.monotonic() < deadline:
                    place = (f"{channel}-{_FLOOD_FROM + number}", request)
                    item = Item(f"{self._tag}-{channel}-flood-{number}-{request}", channel, place)
                    request += 1
                    if not await self._flood_one(http, item, _FLOOD_FROM + number):
                        await asyncio.sleep(_RETRY_PAUSE)

            async with asyncio.TaskGroup() as group:
                for number in range(clients):
                    group.create_task(client(number))

    async def _flood_one(self, http: aiohttp.ClientSession, item: Item, conversation: int) -> bool:
        """Request a message, and return whether it was accepted."""
        ours, theirs = _addresses(item.channel, conversation)
        url = f"{self._stack.gateway_url}/api/messages/{item.channel}"
        at = time.monotonic()
        status, retry_after = None, False
        with suppress(aiohttp.ClientError, TimeoutError, ValueError):
            async with http.post(url, json=_payload(item.channel, ours, theirs, item.name)) as response:
                body = await response.json()
                status, retry_after = response.status, "Retry-After" in response.headers
        answer = Answer("flood", at, time.monotonic() - at, status, retry_after)
        self.record.answers.append(answer)
        if answer.is_accepted:
            item.id = str(body["id"])
            item.accepted_at = datetime.now(UTC)
            self.record.sends.append(item)
        return answer.is_accepted

    async def _send(self, channel: str, client: int) -> None:
        async for number in self._beat(self._send_interval):
            conversation = client * _CONVERSATIONS + number % _CONVERSATIONS
            name = f"{self._tag}-{channel}-{client}-{number}"
            await self._send_one(channel, name, conversation, number)
            if number % _REPEAT_EVERY == 0:
                await self._send_one(channel, name, conversation, number)

    async def repeat(self, item: Item, key: str) -> None:
        """Request an accepted message of `send` again, with the same key."""
        await self._send_one(item.channel, item.name, _BURST_FROM, item.place[1], key)

    async def _send_one(
        self, channel: str, name: str, conversation: int, number: int, key: str | None = None
    ) -> Item:
        """Request a message until it is accepted, and note whether its id differs from the first one."""
        item = Item(name, channel, (f"{channel}-{conversation}", number))
        ours, theirs = _addresses(channel, conversation)
        payload = _payload(channel, ours, theirs, name)
        if name not in self._accepted:
            self.record.sends.append(item)
        await self._until_accepted(
            "send",
            item,
            lambda: f"{self._stack.gateway_url}/api/messages/{channel}",
            payload,
            {"Idempotency-Key": f'"{key or name}"'},
        )
        if item.id and item.id != self._accepted.setdefault(name, item.id):
            self.record.differing.append(name)
        return item

    async def _receive(self, channel: str, provider: int) -> None:
        id_field = {"sms": "messaging_provider_id", "email": "xillio_id"}[channel]
        url = f"{self._stack.provider_urls[channel]}/mock/inbound"
        async for number in self._beat(self._receive_interval):
            conversation = number % (_CLIENTS * _CONVERSATIONS)
            name = f"{self._tag}-in-{channel}-{provider}-{number}"
            item = Item(name, channel, (f"{channel}-{conversation}", number))
            self.record.inbound.append(item)
            ours, theirs = _addresses(channel, conversation)
            payload = {**_payload(channel, theirs, ours, name), id_field: name}
            await self._until_accepted("webhook", item, lambda: url, payload, {})

    async def _read(self) -> None:
        async for number in self._beat(_READ_INTERVAL):
            sent = self.record.sends[number % len(self.record.sends)].id if self.record.sends else None
            path = f"/api/messages/{sent}" if sent and number % 2 else "/api/conversations?limit=5"
            await self._request("read", "GET", self._stack.gateway_url + path)

    async def _beat(self, interval: float) -> AsyncIterator[int]:
        number = 0
        while not self._stopping.is_set():
            yield number
            number += 1
            # A client that was held up does not catch up afterwards.
            try:
                await asyncio.wait_for(self._stopping.wait(), interval)
            except TimeoutError:
                continue

    async def _until_accepted(
        self,
        kind: str,
        item: Item,
        url: Callable[[], str],
        payload: dict[str, Any],
        headers: dict[str, str],
    ) -> None:
        deadline = time.monotonic() + _RETRY_SECONDS
        while time.monotonic() < deadline or not self._stopping.is_set():
            answer, body = await self._request(kind, "POST", url(), json=payload, headers=headers)
            if answer.is_accepted:
                item.id = str(body["id"])
                item.accepted_at = datetime.now(UTC)
                return
            await asyncio.sleep(_RETRY_PAUSE)

    async def _request(self, kind: str, method: str, url: str, **options: Any) -> tuple[Answer, Any]:  # noqa: ANN401
        at = time.monotonic()
        status, retry_after, body = None, False, None
        try:
            async with asyncio.timeout(_RESPONSE_TIMEOUT):
                response = await self._http.request(method, url, **options)
            status, body = response.status_code, response.json()
            retry_after = "Retry-After" in response.headers
            if kind == "webhook":
                status, body, retry_after = _of_gateway(status, body)
        except (httpx.TransportError, TimeoutError, ValueError):
            pass  # there is no response, or only a part of one
        answer = Answer(kind, at, time.monotonic() - at, status, retry_after)
        self.record.answers.append(answer)
        return answer, body


def _of_gateway(status: int, body: Any) -> tuple[int | None, Any, bool]:  # noqa: ANN401
    """Return the gateway's response to a webhook; the mock provider reports it without its headers."""
    if status == _NO_GATEWAY:
        return None, None, False
    return body["status"], body["response"], True


def _addresses(channel: str, conversation: int) -> tuple[str, str]:
    if channel == "sms":
        return "+12016661234", f"+1804555{conversation:04}"
    return "us@example.com", f"customer-{conversation}@example.com"


def _payload(channel: str, from_: str, to: str, body: str) -> dict[str, Any]:
    kind = {"type": "sms"} if channel == "sms" else {}
    return {"from": from_, "to": to, **kind, "body": body, "attachments": None, "timestamp": _TIMESTAMP}


@asynccontextmanager
async def running_load(stack: Stack, tag: str, *, rate: float) -> AsyncIterator[Load]:
    """Create load for the block; after it, every request has been accepted or abandoned."""
    limits = httpx.Limits(max_keepalive_connections=20)
    async with httpx.AsyncClient(timeout=_RESPONSE_TIMEOUT + 5, trust_env=False, limits=limits) as http:
        load = Load(stack, http, tag, rate=rate)
        running = asyncio.create_task(load.run())
        try:
            yield load
            load.stop()
            await running
        finally:
            running.cancel()
            await asyncio.wait([running])


def by_conversation(items: list[Item]) -> Iterator[list[Item]]:
    """Yield the messages of each conversation, in the order in which they were accepted."""
    places = {item.place[0] for item in items}
    for place in sorted(places):
        yield sorted((item for item in items if item.place[0] == place), key=lambda item: item.place[1])
