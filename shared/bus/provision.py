"""Creates or updates the streams, consumers and buckets, as a separate step like migrations.

    python -m shared.bus.provision

It can be run at any time and any number of times. It deletes nothing except the sender's consumers of new
messages that have been replaced: those of version 0.1, and the shards of a different `SENDER_SHARDS`.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import nats
import nats.errors
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, ConsumerInfo, StreamConfig
from nats.js.errors import APIError, NotFoundError
from pydantic import Field
from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

from shared.bus.topology import DEFAULT_SHARDS, Consumer, Stream, consumers, streams
from shared.errors import ServiceError
from shared.ids import PARTITIONS
from shared.settings import BusSettings, load

_CONNECT_ATTEMPTS = 5
_TIMEOUT = 30

_REPLICAS_EXCEED_STREAM = 10_126
_CANNOT_CREATE = {10_012, 10_104}
_SETTLE_SECONDS = 10

_OF_SENDER = "sender-"
"""The prefix of the names of the consumers from which the sender reads."""


class DamagedConsumersError(ServiceError):
    """The server cannot create some consumers, because it cannot read their stored state."""

    def __init__(self, consumers: Sequence[Consumer]) -> None:
        names = ", ".join(f"{consumer.name} of {consumer.stream}" for consumer in consumers)
        super().__init__(
            f"nats-server cannot create {names}; everything else is up to date. Its log has the reason;"
            ' for a corrupt state file, see "A damaged consumer" in docs/operations.md'
        )


class ProvisionSettings(BusSettings):
    """The settings of the streams.

    Attributes:
        stream_replicas: the number of copies of each stream in a cluster.
        stream_max_bytes: the size at which each stream rejects messages; -1 for no limit.
        sender_shards: the number of shards for each channel and priority.
    """

    stream_replicas: int = Field(default=1, ge=1, le=5)
    stream_max_bytes: int = Field(default=-1, ge=-1)
    sender_shards: int = Field(default=DEFAULT_SHARDS, ge=1, le=PARTITIONS)


async def provision(
    jetstream: JetStreamContext, *, replicas: int = 1, max_bytes: int = -1, shards: int = DEFAULT_SHARDS
) -> None:
    """Create or update the declared topology on the server.

    Args:
        jetstream: the server.
        replicas: the number of copies of each stream in a cluster, from 1 to 5.
        max_bytes: the size at which each stream rejects messages; -1 for no limit.
        shards: the number of shards for each channel and priority.

    Raises:
        DamagedConsumersError: the server cannot create some consumers; everything else is up to date.
        nats.js.errors.APIError: the server rejects a part of it.
    """
    for stream in streams(replicas=replicas, max_bytes=max_bytes):
        await _put_stream(jetstream, stream)
    declared = consumers(shards)
    # Read first: a message that arrives now may be one that the old consumers have not seen.
    last = (await jetstream.stream_info(Stream.OUTBOUND)).state.last_seq
    replaced = await _replaced_by(jetstream, declared)
    damaged: list[Consumer] = []
    for consumer in declared:
        try:
            await _put_consumer(jetstream, consumer.stream, consumer.config(replicas))
        except APIError as exc:
            if exc.err_code not in _CANNOT_CREATE:
                raise
            damaged.append(consumer)
            continue
        if replaced and consumer.is_pinned:
            await _advance(jetstream, consumer, replaced, last)
    if damaged:
        raise DamagedConsumersError(damaged)
    for old in replaced:
        await jetstream.delete_consumer(Stream.OUTBOUND, old.name)


async def _put_stream(jetstream: JetStreamContext, config: StreamConfig) -> None:
    try:
        await jetstream.stream_info(str(config.name))
    except NotFoundError:
        await jetstream.add_stream(config)
    else:
        await jetstream.update_stream(config)


def _has_not_settled(error: BaseException) -> bool:
    return isinstance(error, APIError) and error.err_code == _REPLICAS_EXCEED_STREAM


# A cluster confirms more replicas of a stream before it accepts as many for the consumers of the stream.
@retry(
    retry=retry_if_exception(_has_not_settled),
    stop=stop_after_delay(_SETTLE_SECONDS),
    wait=wait_fixed(0.2),
    reraise=True,
)
async def _put_consumer(jetstream: JetStreamContext, stream: str, config: ConsumerConfig) -> None:
    # For a consumer that exists already, this updates its configuration and keeps its position in the stream.
    await jetstream.add_consumer(stream, config)


async def _replaced_by(jetstream: JetStreamContext, declared: Sequence[Consumer]) -> list[ConsumerInfo]:
    """Return the sender's consumers of new messages that are no longer declared."""
    kept = {consumer.name for consumer in declared}
    found: list[ConsumerInfo] = []
    while page := await jetstream.consumers_info(Stream.OUTBOUND, offset=len(found)):
        found += page
    return [info for info in found if info.name.startswith(_OF_SENDER) and info.name not in kept]


async def _advance(
    jetstream: JetStreamContext, shard: Consumer, replaced: Sequence[ConsumerInfo], last: int
) -> None:
    """Start a shard where the slowest of the consumers that it replaces has stopped.

    The old consumers could be updated in place, but each would keep its own position, and skip the messages
    of its new partitions that their former consumers have not read.
    """
    begin = last + 1
    for subject in shard.filter_subjects:
        # If none of them reads this subject, an earlier run may have been interrupted after it deleted the
        # consumer that did.
        done = min((_position(each, last) for each in replaced if subject in _filters(each)), default=0)
        begin = min(begin, await _next(jetstream, subject, done + 1) or begin)
    info = await jetstream.consumer_info(shard.stream, shard.name)
    if info.delivered is None or info.delivered.stream_seq < begin - 1:
        await jetstream.reset_consumer(shard.stream, shard.name, begin)


async def _next(jetstream: JetStreamContext, subject: str, sequence: int) -> int | None:
    """Return the sequence of the first message with a subject from `sequence` on, or None."""
    try:
        return (await jetstream.get_msg(Stream.OUTBOUND, seq=sequence, subject=subject, next=True)).seq
    except NotFoundError:
        return None


def _filters(consumer: ConsumerInfo) -> set[str]:
    return set(consumer.config.filter_subjects or [])


def _position(consumer: ConsumerInfo, last: int) -> int:
    """Return the sequence up to which a consumer is done; `last` is the last sequence of the stream."""
    is_done = not (consumer.num_pending or consumer.num_ack_pending)
    return last if is_done or consumer.ack_floor is None else consumer.ack_floor.stream_seq


@asynccontextmanager
async def administering(settings: BusSettings, *, program: str) -> AsyncIterator[JetStreamContext]:
    """Connect to JetStream for the block, in which its errors end the program with one line."""
    servers = [server.strip() for server in settings.nats_url.split(",")]
    try:
        client = await nats.connect(
            servers,
            name=program,
            inbox_prefix=f"_INBOX_{program}".encode(),
            connect_timeout=2,
            allow_reconnect=True,
            max_reconnect_attempts=_CONNECT_ATTEMPTS,
            reconnect_time_wait=0.5,
            error_cb=_ignore,
        )
    except (nats.errors.Error, OSError, TimeoutError) as exc:
        sys.exit(f"{program}: cannot connect to NATS at NATS_URL: {exc!r}")
    try:
        yield client.jetstream(timeout=_TIMEOUT)
    except (nats.errors.Error, APIError, ServiceError, TimeoutError) as exc:
        sys.exit(f"{program}: {exc}")
    finally:
        await client.close()


async def main() -> None:
    settings = load(ProvisionSettings, program="provision")
    async with administering(settings, program="provision") as jetstream:
        await provision(
            jetstream,
            replicas=settings.stream_replicas,
            max_bytes=settings.stream_max_bytes,
            shards=settings.sender_shards,
        )
    print("provision: the streams, consumers and buckets are up to date")  # noqa: T201 - a command


async def _ignore(_: Exception) -> None:
    """Ignore an error of an attempt to connect; the last one is raised."""


if __name__ == "__main__":
    asyncio.run(main())
