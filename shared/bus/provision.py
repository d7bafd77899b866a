"""Creates or updates the streams, consumers and buckets: a step of its own, like migrations.

    python -m shared.bus.provision

It may be run at any time and as often as one likes. It deletes nothing.
"""

import asyncio
import sys

import nats
import nats.errors
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, StreamConfig
from nats.js.errors import APIError, NotFoundError
from pydantic import Field
from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

from shared.bus.topology import CONSUMERS, streams
from shared.settings import BusSettings, load

_CONNECT_ATTEMPTS = 5
_TIMEOUT = 30

_REPLICAS_EXCEED_STREAM = 10_126
_SETTLE_SECONDS = 10


class ProvisionSettings(BusSettings):
    """How the streams are kept.

    Attributes:
        stream_replicas: copies of each stream in a cluster.
        stream_max_bytes: limit of each stream, after which it refuses; -1 for none.
    """

    stream_replicas: int = Field(default=1, ge=1, le=5)
    stream_max_bytes: int = Field(default=-1, ge=-1)


async def provision(jetstream: JetStreamContext, *, replicas: int = 1, max_bytes: int = -1) -> None:
    """Bring the server to the declared topology.

    Raises:
        nats.js.errors.APIError: the server refuses some of it.
    """
    for stream in streams(replicas=replicas, max_bytes=max_bytes):
        await _put_stream(jetstream, stream)
    for consumer in CONSUMERS:
        await _put_consumer(jetstream, consumer.stream, consumer.config(replicas))


async def _put_stream(jetstream: JetStreamContext, config: StreamConfig) -> None:
    try:
        await jetstream.stream_info(str(config.name))
    except NotFoundError:
        await jetstream.add_stream(config)
    else:
        await jetstream.update_stream(config)


def _has_not_settled(error: BaseException) -> bool:
    return isinstance(error, APIError) and error.err_code == _REPLICAS_EXCEED_STREAM


# A cluster answers for a stream that got more replicas before it grants its consumers as many.
@retry(
    retry=retry_if_exception(_has_not_settled),
    stop=stop_after_delay(_SETTLE_SECONDS),
    wait=wait_fixed(0.2),
    reraise=True,
)
async def _put_consumer(jetstream: JetStreamContext, stream: str, config: ConsumerConfig) -> None:
    # Creating a consumer that is there updates it, and keeps its place in the stream.
    await jetstream.add_consumer(stream, config)


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
            error_cb=_keep_quiet,
        )
    except (nats.errors.Error, OSError, TimeoutError) as exc:
        sys.exit(f"provision: no NATS at NATS_URL: {exc!r}")
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
    print("provision: streams, consumers and buckets are as declared")  # noqa: T201 - a command


async def _keep_quiet(_: Exception) -> None:
    """The error that counts is the last one, which is raised."""


if __name__ == "__main__":
    asyncio.run(main())
