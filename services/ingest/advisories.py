"""Picks up what the server has stopped delivering.

A message that kills its consumer again and again is delivered no more, and would lie in its stream unseen.
The server says so in an advisory, and from that the message becomes a dead letter.
"""

import asyncio
from collections.abc import Sequence

from pydantic import BaseModel, ValidationError

from shared.bus.consumer import StreamMessage, Done, Outcome
from shared.bus.dead_letters import DeadLetterPublisher
from shared.bus.streams import Stored, Streams
from shared.bus.topology import Stream
from shared.errors import BadMessageError
from shared.events import Origin


class Advisory(BaseModel):
    """What the server writes: which message, and which consumer will not get it again."""

    type: str
    stream: str
    consumer: str
    stream_seq: int
    deliveries: int = 0
    reason: str = ""

    def origin(self, subject: str) -> Origin:
        return Origin(stream=self.stream, sequence=self.stream_seq, subject=subject, consumer=self.consumer)

    def verdict(self) -> BadMessageError:
        if self.type.endswith(".terminated"):
            return BadMessageError("terminated", f"{self.consumer} terminated it: {self.reason or 'unsaid'}")
        return BadMessageError(
            "max_deliver_exceeded", f"{self.consumer} was given it {self.deliveries} times and never finished"
        )


class AdvisoryHandler:
    """Handles advisories."""

    def __init__(self, streams: Streams, dead_letters: DeadLetterPublisher) -> None:
        self._streams = streams
        self._dead_letters = dead_letters

    async def __call__(self, deliveries: Sequence[StreamMessage]) -> Sequence[Outcome]:
        return await asyncio.gather(*(self._sweep(delivery) for delivery in deliveries))

    async def _sweep(self, delivery: StreamMessage) -> Outcome:
        try:
            advisory = Advisory.model_validate_json(delivery.payload)
        except ValidationError:
            error = BadMessageError("invalid_event", "it is no advisory that we know")
            await self._dead_letters.publish(delivery.payload, error, delivery.origin, at=delivery.stored_at)
            return Done()
        message = await self._streams.message(advisory.stream, advisory.stream_seq)
        if message is None and advisory.stream == Stream.DELAYED:
            return Done()  # a newer step of its message took its place
        verdict = advisory.verdict()
        if message is None:
            message = Stored(subject="", payload=b"")
            verdict = BadMessageError(verdict.code, f"{verdict}; its stream no longer has it")
        origin = advisory.origin(message.subject)
        await self._dead_letters.publish(message.payload, verdict, origin, at=delivery.stored_at)
        return Done()
