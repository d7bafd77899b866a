import asyncio

import pytest
from nats.js import JetStreamContext
from structlog.testing import capture_logs

from shared.bus import lag
from shared.bus.client import Bus
from shared.bus.lag import watch_lag
from shared.bus.streams import Streams
from shared.bus.topology import INGEST_CONSUMERS, sender_shards
from shared.channels import Channel
from shared.observability.metrics import CONSUMER_ACK_PENDING, CONSUMER_MISSING, CONSUMER_PENDING
from tests.waiting import eventually


async def test_the_metrics_of_former_shards_disappear(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag, "_INTERVAL", 0.01)
    first, second = shards = sender_shards(Channel.SMS, 1)
    measured = [first, second]
    names = {shard.name for shard in shards}

    def exported() -> set[str]:
        metrics = [*CONSUMER_PENDING.collect(), *CONSUMER_ACK_PENDING.collect()]
        return names & {sample.labels["consumer"] for metric in metrics for sample in metric.samples}

    async def both_are_exported() -> bool:
        return exported() == names

    async def one_is_exported() -> bool:
        return exported() == {first.name}

    watching = asyncio.create_task(watch_lag(Streams(bus), lambda: list(measured)))
    await eventually(both_are_exported)
    measured.remove(second)
    await eventually(one_is_exported)
    watching.cancel()


async def test_a_missing_consumer_is_logged_each_time_that_it_disappears(
    bus: Bus, jetstream: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lag, "_INTERVAL", 0.01)
    consumer = INGEST_CONSUMERS[0]
    expected = {"event": "consumer_missing", "stream": consumer.stream, "consumer": consumer.name}

    async def is_missing() -> bool:
        return bool(CONSUMER_MISSING.labels(consumer.stream, consumer.name)._value.get() == 1)  # noqa: SLF001

    async def is_there() -> bool:
        return not await is_missing()

    with capture_logs() as logs:
        watching = asyncio.create_task(watch_lag(Streams(bus), lambda: [consumer]))
        for _ in range(2):
            await eventually(is_there)
            await jetstream.delete_consumer(consumer.stream, consumer.name)
            await eventually(is_missing)
            await jetstream.add_consumer(consumer.stream, consumer.config(replicas=1))
        await eventually(is_there)
        watching.cancel()
    assert logs == [{**expected, "log_level": "error"}] * 2
