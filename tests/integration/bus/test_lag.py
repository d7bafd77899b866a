import asyncio

import pytest

from shared.bus import lag
from shared.bus.client import Bus
from shared.bus.lag import watch_lag
from shared.bus.streams import Streams
from shared.bus.topology import sender_shards
from shared.channels import Channel
from shared.observability.metrics import CONSUMER_ACK_PENDING, CONSUMER_PENDING
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
