"""The load: clients that want to be sure, and providers that repeat a webhook until it is taken.

Everything has a name of its own that travels in its body, so that it can be found again at the provider and
in the database, whatever ids it was given on the way.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

from dev.chaos.stack import Stack

CHANNELS = ("sms", "email")

_CLIENTS = 4
_CONVERSATIONS = 5
_PROVIDERS = 2
_ASKED_TWICE = 10
"""Of so many messages one is asked for again although it was accepted."""
_BURST_CLIENTS = 24
_BURST_CONVERSATIONS = 500
_BURST_FROM = 1_000
_ANSWER_TIMEOUT = 10.0
"""Seconds after which a client stops waiting: twice what the API may take."""
_PAUSE = 0.25
_GIVE_UP = 60.0
_READ_EVERY = 0.4
_WRITTEN = "2024-11-01T14:00:00Z"
_TAKEN = {"send": {202}, "webhook": {200}, "read": {200, 404}}
_NOT_NOW = 503
_NO_GATEWAY = 502


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one request.

    Attributes:
        kind: `send`, `webhook` or `read`.
        at: when it was made, on the clock of `time.monotonic`.
        seconds: until the answer, or until the connection broke.
        status: None when there was no answer.
        retry_after: whether the answer said when to come again.
    """

    kind: str
    at: float
    seconds: float
    status: int | None
    retry_after: bool

    @property
    def is_taken(self) -> bool:
        return self.status in _TAKEN[self.kind]

    @property
    def is_in_order(self) -> bool:
        """Whether a client may get this: it is taken, refused for now, or nobody was there."""
        return self.is_taken or self.status is None or (self.status == _NOT_NOW and self.retry_after)


@dataclass(slots=True)
class Item:
    """A message, of either direction.

    Attributes:
        name: its text, which no other message has; of an inbound one it is the provider's id as well.
        place: conversation, and the number in it.
        id: as the gateway answered; None until it did.
        accepted_at: when it did.
    """

    name: str
    channel: str
    place: tuple[str, int]
    id: str | None = None
    accepted_at: datetime | None = None


@dataclass
class Record:
    """All that was asked and answered.

    Attributes:
        differing: names of what was accepted, asked for again with the same key, and got another id.
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
        tag: what all names begin with.
        rate: messages a second of each direction's clients together: three in four are sent, one is received.
    """

    def __init__(self, stack: Stack, http: httpx.AsyncClient, tag: str, *, rate: float) -> None:
        self.record = Record()
        self._stack = stack
        self._http = http
        self._tag = tag
        self._accepted: dict[str, str] = {}
        self._stopping = asyncio.Event()
        self._send_every = _CLIENTS * len(CHANNELS) / (rate * 3 / 4)
        self._receive_every = _PROVIDERS * len(CHANNELS) / (rate / 4)

    def stop(self) -> None:
        """Begin nothing new; what was begun is repeated until it is taken."""
        self._stopping.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for channel in CHANNELS:
                for number in range(_CLIENTS):
                    group.create_task(self._send(channel, number))
                for number in range(_PROVIDERS):
                    group.create_task(self._receive(channel, number))
            group.create_task(self._read())

    async def burst(self, channel: str, count: int) -> None:
        """Send so many messages as fast as they are taken."""
        numbers = iter(range(count))

        async def client() -> None:
            for number in numbers:
                name = f"{self._tag}-{channel}-burst-{number}"
                await self._send_one(channel, name, _BURST_FROM + number % _BURST_CONVERSATIONS, number)

        async with asyncio.TaskGroup() as group:
            for _ in range(_BURST_CLIENTS):
                group.create_task(client())

    async def _send(self, channel: str, client: int) -> None:
        async for number in self._beat(self._send_every):
            conversation = client * _CONVERSATIONS + number % _CONVERSATIONS
            name = f"{self._tag}-{channel}-{client}-{number}"
            await self._send_one(channel, name, conversation, number)
            if number % _ASKED_TWICE == 0:
                await self._send_one(channel, name, conversation, number)

    async def _send_one(self, channel: str, name: str, conversation: int, number: int) -> None:
        """Send a message until it is accepted; of one that was, see that it is the same again."""
        item = Item(name, channel, (f"{channel}-{conversation}", number))
        ours, theirs = _addresses(channel, conversation)
        payload = _payload(channel, ours, theirs, name)
        url = f"{self._stack.gateway_url}/api/messages/{channel}"
        if name not in self._accepted:
            self.record.sends.append(item)
        await self._until_taken("send", item, url, payload, {"Idempotency-Key": f'"{name}"'})
        if item.id and item.id != self._accepted.setdefault(name, item.id):
            self.record.differing.append(name)

    async def _receive(self, channel: str, provider: int) -> None:
        id_field = {"sms": "messaging_provider_id", "email": "xillio_id"}[channel]
        async for number in self._beat(self._receive_every):
            conversation = number % (_CLIENTS * _CONVERSATIONS)
            name = f"{self._tag}-in-{channel}-{provider}-{number}"
            item = Item(name, channel, (f"{channel}-{conversation}", number))
            self.record.inbound.append(item)
            ours, theirs = _addresses(channel, conversation)
            payload = {**_payload(channel, theirs, ours, name), id_field: name}
            url = f"{self._stack.provider_urls[channel]}/mock/inbound"
            await self._until_taken("webhook", item, url, payload, {})

    async def _read(self) -> None:
        async for number in self._beat(_READ_EVERY):
            sent = self.record.sends[number % len(self.record.sends)].id if self.record.sends else None
            path = f"/api/messages/{sent}" if sent and number % 2 else "/api/conversations?limit=5"
            await self._ask("read", "GET", self._stack.gateway_url + path)

    async def _beat(self, every: float) -> AsyncIterator[int]:
        number = 0
        while not self._stopping.is_set():
            yield number
            number += 1
            # By the clock of the wall nothing is made up for: whoever is held up sends less.
            try:
                await asyncio.wait_for(self._stopping.wait(), every)
            except TimeoutError:
                continue

    async def _until_taken(
        self, kind: str, item: Item, url: str, payload: dict[str, Any], headers: dict[str, str]
    ) -> None:
        deadline = time.monotonic() + _GIVE_UP
        while time.monotonic() < deadline or not self._stopping.is_set():
            answer, body = await self._ask(kind, "POST", url, json=payload, headers=headers)
            if answer.is_taken:
                item.id = str(body["id"])
                item.accepted_at = datetime.now(UTC)
                return
            await asyncio.sleep(_PAUSE)

    async def _ask(self, kind: str, method: str, url: str, **what: Any) -> tuple[Answer, Any]:  # noqa: ANN401
        at = time.monotonic()
        status, retry_after, body = None, False, None
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT):
                response = await self._http.request(method, url, **what)
            status, body = response.status_code, response.json()
            retry_after = "Retry-After" in response.headers
            if kind == "webhook":
                status, body, retry_after = _of_gateway(status, body)
        except (httpx.TransportError, TimeoutError, ValueError):
            pass  # nobody was there, or not for long enough
        answer = Answer(kind, at, time.monotonic() - at, status, retry_after)
        self.record.answers.append(answer)
        return answer, body


def _of_gateway(status: int, body: Any) -> tuple[int | None, Any, bool]:  # noqa: ANN401
    """Read what the mock provider tells of the gateway's answer to its webhook; headers it does not tell."""
    if status == _NO_GATEWAY:
        return None, None, False
    return body["status"], body["response"], True


def _addresses(channel: str, conversation: int) -> tuple[str, str]:
    if channel == "sms":
        return "+12016661234", f"+1804555{conversation:04}"
    return "us@example.com", f"customer-{conversation}@example.com"


def _payload(channel: str, from_: str, to: str, body: str) -> dict[str, Any]:
    kind = {"type": "sms"} if channel == "sms" else {}
    return {"from": from_, "to": to, **kind, "body": body, "attachments": None, "timestamp": _WRITTEN}


@asynccontextmanager
async def running_load(stack: Stack, tag: str, *, rate: float) -> AsyncIterator[Load]:
    """Load the services while inside; when left, all that was begun has been taken or given up."""
    limits = httpx.Limits(max_keepalive_connections=20)
    async with httpx.AsyncClient(timeout=_ANSWER_TIMEOUT + 5, trust_env=False, limits=limits) as http:
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
    """Group what was sent by its conversation, in the order in which it was accepted."""
    places = {item.place[0] for item in items}
    for place in sorted(places):
        yield sorted((item for item in items if item.place[0] == place), key=lambda item: item.place[1])
