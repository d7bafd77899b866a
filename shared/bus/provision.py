"""Creates or updates the streams, consumers and buckets, as a separate step like migrations.

    python -m shared.bus.provision

It can be run at any time and any number of times. It deletes nothing except the consumers of version 0.1 that
others have replaced.
"""

import asyncio
import re
import sys

import nats
import nats.errors
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, ConsumerInfo, StreamConfig
from nats.js.errors import APIError, NotFoundError
from pydantic import Field
from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

from shared.bus.topology import CONSUMERS, Stream, sender_shards, streams
from shared.channels import Channel
from shared.settings import BusSettings, load

_CONNECT_ATTEMPTS = 5
_TIMEOUT = 30

_REPLICAS_EXCEED_STREAM = 10_126
_SETTLE_SECONDS = 10

_LANE = re.compile(r"sender-(sms|email)-\d\d")
"""The names of the consumers from which the sender read new messages until version 0.1."""


class ProvisionSettings(BusSettings):
    """The settings of the streams.

    Attributes:
        stream_replicas: the number of copies of each stream in a cluster.
        stream_max_bytes: the size at which each stream rejects messages; -1 for no limit.
    """

    stream_replicas: int = Field(default=1, ge=1, le=5)
    stream_max_bytes: int = Field(default=-1, ge=-1)


async def provision(jetstream: JetStreamContext, *, replicas: int = 1, max_bytes: int = -1) -> None:
    """Create or update the declared topology on the server.

    Raises:
        nats.js.errors.APIError: the server rejects a part of it.
    """
    for stream in streams(replicas=replicas, max_bytes=max_bytes):
        await _put_stream(jetstream, stream)
    for consumer in CONSUMERS:
        await _put_consumer(jetstream, consumer.stream, consumer.config(replicas))
    await _replace_lanes(jetstream)


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


async def _replace_lanes(jetstream: JetStreamContext) -> None:
    """Let the shards begin where the lanes of version 0.1 have stopped, and delete the lanes.

    The lanes could be updated to shards in place, but each would keep its own position, and skip the messages
    that others of its partitions' lanes have not read.
    """
    last = (await jetstream.stream_info(Stream.OUTBOUND)).state.last_seq
    lanes = [info for info in await jetstream.consumers_info(Stream.OUTBOUND) if _LANE.fullmatch(info.name)]
    for shard in (shard for channel in Channel for shard in sender_shards(channel)):
        replaced = [lane for lane in lanes if _filters(lane) & set(shard.filter_subjects)]
        # If some are missing, an earlier run was interrupted while it deleted them.
        if not set(shard.filter_subjects) <= set().union(*map(_filters, replaced)):
            continue
        begin = min(_position(lane, last) for lane in replaced) + 1
        info = await jetstream.consumer_info(shard.stream, shard.name)
        if info.delivered is None or info.delivered.stream_seq < begin - 1:
            await jetstream.reset_consumer(shard.stream, shard.name, begin)
    for lane in lanes:
        await jetstream.delete_consumer(Stream.OUTBOUND, lane.name)


def _filters(consumer: ConsumerInfo) -> set[str]:
    return set(consumer.config.filter_subjects or [])


def _position(lane: ConsumerInfo, last: int) -> int:
    """Return the sequence up to which all messages of a lane are done, where `last` is that of the stream."""
    is_done = not (lane.num_pending or lane.num_ack_pending)
    return last if is_done or lane.ack_floor is None else lane.ack_floor.stream_seq


async def main() -> None:
    settings = load(ProvisionSettings, program="provision")
    servers = [server.strip() for server in settings.nats_url.split(",")]
    try:
        client = await nats.connect(
            servers,
            name="provision",
            inbox_prefix=b"_INBOX_provision",
            connect_timeout=2,
            allow_reconnect=True,
            max_reconnect_attempts=_CONNECT_ATTEMPTS,
            reconnect_time_wait=0.5,
            error_cb=_ignore,
        )
    except (nats.errors.Error, OSError, TimeoutError) as exc:
        sys.exit(f"provision: cannot connect to NATS at NATS_URL: {exc!r}")
    try:
        await provision(
            client.jetstream(timeout=_TIMEOUT),
            replicas=settings.stream_replicas,
            max_bytes=settings.stream_max_bytes,
        )
    except (nats.errors.Error, APIError, TimeoutError) as exc:
        sys.exit(f"provision: {exc}")
    finally:
        await client.close()
    print("provision: the streams, consumers and buckets are up to date")  # noqa: T201 - a command


async def _ignore(_: Exception) -> None:
    """Ignore an error of an attempt to connect; the last one is raised."""


if __name__ == "__main__":
    asyncio.run(main())
