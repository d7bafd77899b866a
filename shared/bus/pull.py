"""Reads batches of messages from a consumer, and each message as soon as it is stored."""

import asyncio
import json
from itertools import count

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from shared.bus.topology import Consumer
from shared.errors import BusUnavailableError

_EXPIRES = 1.0
"""Seconds after which the server ends a request for which there is no message."""

_ANSWER_TIMEOUT = 3.0
"""Seconds after which a request that the server has not ended is considered lost."""

_ENDED = {"404", "408"}
"""There are no messages, or no more."""


class Pull:
    """A subscription to the messages of a consumer.

    No request is left at the server between two calls of `next_batch`: while a batch is processed, no further
    messages are delivered. `fetch` of nats-py does not ensure that. It can take the late report that an
    earlier request has ended for that of the current one, and return while the server still has its request.
    The next call then waits for up to its whole timeout although it has already received a message.
    """

    def __init__(self, client: Client, consumer: Consumer) -> None:
        self._client = client
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{consumer.stream}.{consumer.name}"
        self._inbox = client.new_inbox()
        self._numbers = count()
        self._received: asyncio.Queue[Msg] = asyncio.Queue()
        self._subscription: Subscription | None = None

    async def open(self) -> None:
        self._subscription = await self._client.subscribe(f"{self._inbox}.*", cb=self._received.put)

    async def close(self) -> None:
        if self._subscription:
            await self._subscription.unsubscribe()

    async def next_batch(self, size: int) -> list[Msg]:
        """Return up to `size` messages, or none if there is none within a second.

        Raises:
            BusUnavailableError: the server does not answer, or refuses the request.
        """
        batch = await self._request(1, {"expires": int(_EXPIRES * 1e9)})
        if batch and size > 1:
            batch += await self._request(size - 1, {"no_wait": True})
        return batch

    async def _request(self, size: int, options: dict[str, object]) -> list[Msg]:
        """Return the messages of a request as soon as the server has ended it."""
        reply = f"{self._inbox}.{next(self._numbers)}"
        await self._client.publish(
            self._subject, json.dumps({"batch": size, **options}).encode(), reply=reply
        )
        batch: list[Msg] = []
        try:
            while len(batch) < size and (msg := await self._next(reply)):
                batch.append(msg)
        except BusUnavailableError:
            if not batch:  # otherwise the next request fails as well
                raise
        return batch

    async def _next(self, reply: str) -> Msg | None:
        """Return the next message, or None if the server has ended the request."""
        while True:
            try:
                async with asyncio.timeout(_ANSWER_TIMEOUT):
                    msg = await self._received.get()
            except TimeoutError as exc:
                raise BusUnavailableError("no answer to a request for messages") from exc
            if msg.reply:
                return msg
            headers = msg.headers or {}
            if msg.subject != reply:
                continue  # a late report on an earlier request
            if headers.get("Status") in _ENDED:
                return None
            raise BusUnavailableError(f"{headers.get('Status')} {headers.get('Description', '')}")
