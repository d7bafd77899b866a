"""Webhooks to applications, some of which are dead, while everything is killed."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from signal import Signals
from statistics import quantiles
from typing import Any

import nats
import nats.errors
from nats.js.api import ConsumerConfig, DeliverPolicy

from dev.chaos import faults
from dev.chaos.errors import ChaosError
from dev.chaos.receiver import Behaviour, Receiver, behaviour_of, receiving
from dev.chaos.scene import WARM_UP, Scenario, Scene
from dev.chaos.stack import EVERYTHING
from shared.bus.topology import Stream

_TYPES = ("message.received", "message.sent")
_QUIET_SECONDS = 10.0
_LONGEST_DELAY = 1.0
"""Seconds: the 99th percentile while nothing is dead."""

_COMPLETE_SECONDS = 120.0
_STILL_SECONDS = 5.0


async def _kill_everything(scene: Scene) -> None:
    count = int(scene.pick(short=20, full=100))
    async with receiving() as receiver:
        await asyncio.gather(*(_create(scene, receiver, number) for number in range(count)))
        first = await _next_sequence(scene)
        await asyncio.sleep(WARM_UP)
        await _expect_speed(scene, receiver)
        for name in scene.random.sample(EVERYTHING, k=len(EVERYTHING)):
            await faults.restart(scene.stack, name, Signals.SIGKILL)
            await asyncio.sleep(scene.random.uniform(0.2, 1))
        scene.load.stop()
        await _expect_completeness(scene, receiver, count, first)


async def _create(scene: Scene, receiver: Receiver, number: int) -> None:
    response = await scene.stack.http.post(
        f"{scene.stack.gateway_url}/api/webhook-endpoints",
        json={"url": receiver.url(number), "event_types": list(_TYPES)},
    )
    response.raise_for_status()


async def _expect_speed(scene: Scene, receiver: Receiver) -> None:
    start = time.time()
    await asyncio.sleep(_QUIET_SECONDS)
    delays = [delay for at, delay in receiver.delays if at - delay >= start]
    if len(delays) < 2:  # noqa: PLR2004 - quantiles need two
        raise ChaosError("no events arrived")
    p99 = quantiles(delays, n=100)[98]
    # The machine may be too slow for the services before the notifier, which this does not include.
    spread = quantiles([spread for at, spread in receiver.spreads if at >= start], n=100)[98]
    scene.notes.append(
        f"nothing dead: {len(delays)} webhooks, p99 {p99 * 1_000:.0f} ms after the event,"
        f" and {spread * 1_000:.0f} ms after the first endpoint"
    )
    scene.expect(p99 < _LONGEST_DELAY, f"the 99th percentile to healthy endpoints was {p99:.1f} s")


async def _expect_completeness(scene: Scene, receiver: Receiver, count: int, first: int) -> None:
    """Wait until there are no new events, and every healthy endpoint has received all since the first one."""
    healthy = [number for number in range(count) if behaviour_of(number) is Behaviour.HEALTHY]
    expected: Mapping[str, Any] = {}
    loop = asyncio.get_running_loop()
    deadline, still_since = loop.time() + _COMPLETE_SECONDS, loop.time()
    missing = len(healthy)
    while loop.time() < deadline and (missing or loop.time() < still_since + _STILL_SECONDS):
        with suppress(
            nats.errors.Error, TimeoutError, OSError
        ):  # the server may still be busy with its recovery
            found = await _published(scene, first)
            if found.keys() != expected.keys():
                expected, still_since = found, loop.time()
        missing = sum(len(expected.keys() - receiver.bodies[number].keys()) for number in healthy)
        await asyncio.sleep(0.5)
    scene.notes.append(
        f"{len(expected)} events to {len(healthy)} of {count} endpoints, {receiver.repeated} repeated;"
        f" requests by behaviour: {', '.join(f'{name} {n}' for name, n in receiver.requests.items())}"
    )
    scene.expect(bool(expected), "there were no events")
    scene.expect(not missing, f"{missing} webhooks are missing")
    scene.expect(not receiver.differing, f"{receiver.differing} events were different when they came again")


async def _next_sequence(scene: Scene) -> int:
    """Return the sequence of the next event, the first one that is sent to all endpoints."""
    async with faults.connected(scene.stack) as client:
        info = await client.jetstream().stream_info(Stream.NOTIFICATIONS)
    return info.state.last_seq + 1


async def _published(scene: Scene, first: int) -> Mapping[str, Any]:
    """Return the events in the stream from a sequence on, by their ids."""
    found: dict[str, Any] = {}
    client = await nats.connect(scene.stack.servers.split(","))
    try:
        jetstream = client.jetstream()
        subscription = await jetstream.pull_subscribe("", stream=Stream.NOTIFICATIONS, config=_reader(first))
        while True:
            try:
                batch = await subscription.fetch(500, timeout=0.5)
            except nats.errors.TimeoutError:
                return found
            for message in batch:
                found[(message.headers or {})["Nats-Msg-Id"]] = message.subject
    finally:
        await client.close()


def _reader(first: int) -> ConsumerConfig:
    return ConsumerConfig(
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=first,
        filter_subjects=[f"notification.{type_}" for type_ in _TYPES],
        inactive_threshold=5,
    )


SCENARIOS = (
    Scenario(
        name="webhooks",
        about="kill -9 of everything in turn: every event reaches every healthy webhook endpoint",
        play=_kill_everything,
        disturbs=frozenset(EVERYTHING),
        settings={
            "ALLOW_PRIVATE_WEBHOOKS": "true",
            "WEBHOOK_RETRY_DELAYS": ",".join(["1", "2", *["5"] * 50]),
        },
        rate=4,
        in_short=False,
    ),
)
