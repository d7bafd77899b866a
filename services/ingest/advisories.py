"""The handler of advisories, which dead-letters the messages that the server no longer delivers.

A message that crashes its consumer repeatedly is no longer delivered, and would stay in its stream unnoticed.
The server publishes an advisory about it, from which the message becomes a dead letter.
"""

import asyncio
from collections.abc import Sequence

from pydantic import BaseModel, Field, ValidationError

from shared.bus.consumer import Done, Outcome, StreamMessage
from shared.bus.dead_letters import DeadLetterPublisher
from shared.bus.streams import Stored, Streams
from shared.bus.topology import Stream
from shared.dead_letters import Origin
from shared.errors import BadMessageError


class Advisory(BaseModel):
    """The server's notice that a consumer will not receive a message again."""

    type: str
    stream: Stream
    consumer: str
    stream_seq: int = Field(ge=1, lt=2**63)
    deliveries: int = 0
    reason: str = ""

    def origin(self, subject: str) -> Origin:
        return Origin(stream=self.stream, sequence=self.stream_seq, subject=subject, consumer=self.consumer)

    @property
    def error(self) -> BadMessageError:
        if self.type.endswith(".terminated"):
            reason = self.reason or "no reason given"
            return BadMessageError("terminated", f"{self.consumer} terminated the message: {reason}")
        return BadMessageError(
            "max_deliver_exceeded",
            f"{self.consumer} received the message {self.deliveries} times and never acknowledged it",
        )


class AdvisoryHandler:
    """Dead-letters the messages of advisories; raises UnavailableError while the bus is not available."""

    def __init__(self, streams: Streams, dead_letters: DeadLetterPublisher) -> None:
        self._streams = streams
        self._dead_letters = dead_letters

    async def __call__(self, batch: Sequence[StreamMessage]) -> Sequence[Outcome]:
        await asyncio.gather(*(self._handle(each) for each in batch))
        return [Done()] * len(batch)

    async def _handle(self, notice: StreamMessage) -> None:
        try:
            advisory = Advisory.model_validate_json(notice.payload)
        except ValidationError:
            error = BadMessageError(
                "invalid_event", "the message is not an advisory about one of our streams"
            )
            await self._dead_letters.publish(notice.payload, error, notice.origin, at=notice.stored_at)
            return
        message = await self._streams.message(advisory.stream, advisory.stream_seq)
        if message is None and advisory.stream == Stream.DELAYED:
            return  # a later step of the same delivery has replaced it
        error = advisory.error
        if message is None:
            message = Stored(subject="", payload=b"")
            error = BadMessageError(error.code, f"{error}; the stream no longer contains the message")
        origin = advisory.origin(message.subject)
        await self._dead_letters.publish(message.payload, error, origin, at=notice.stored_at)
