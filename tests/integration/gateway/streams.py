"""The contents of the streams, as the tests of the gateway read them."""

from typing import Any

from nats.js import JetStreamContext

from shared.bus import lines
from shared.bus.topology import Stream
from shared.events import Event, decode

NOWHERE = "postgresql+asyncpg://user:password@127.0.0.1:1/nowhere"
"""The URL of a PostgreSQL that does not exist."""


async def events(jetstream: JetStreamContext, stream: Stream) -> list[Event[Any]]:
    """Return the events in a stream, oldest first."""
    last = (await jetstream.stream_info(stream)).state.last_seq
    stored = [await jetstream.get_msg(stream, number) for number in range(1, last + 1)]
    return [decode(line) for message in stored for line in lines.split(message.data or b"")]


async def count(jetstream: JetStreamContext, stream: str) -> int:
    return (await jetstream.stream_info(stream)).state.messages
