"""The data of NATS and PostgreSQL: rebuilt, damaged, on a full disk, or dropped because of its age."""

import asyncio
import shutil
from pathlib import Path
from signal import Signals

from nats.js import JetStreamContext

from dev.chaos import faults
from dev.chaos.account import id_of_unreadable, stored
from dev.chaos.errors import ChaosError
from dev.chaos.metrics import total
from dev.chaos.scene import WARM_UP, Scenario, Scene
from dev.chaos.stack import NATS, Stack
from shared.bus.topology import INGEST_CONSUMERS, Consumer, Stream, sender_shards
from shared.channels import Channel

_REBUILD = "services.ingest.rebuild"
_PROVISION = "shared.bus.provision"
_DAMAGED = (
    *(each for each in INGEST_CONSUMERS if each.stream in {Stream.EVENTS, Stream.INBOUND}),
    sender_shards(Channel.SMS)[0],
)

_COUNTED_WITHIN = 15
"""Seconds. Ingest counts lost messages when it starts, and every minute."""

_AGE = 2.0
"""Seconds. Everything older is dropped; the senders read a message much sooner."""

_INGEST = "ingest"
"""The name of the only ingest."""

_AGEING = (Stream.INBOUND, Stream.OUTBOUND)


async def _rebuild(scene: Scene) -> None:
    """Rebuild the database, and once more after the older half of EVENTS was purged."""
    await asyncio.sleep(scene.pick(short=3, full=20))
    await _rebuild_once(scene)
    async with faults.connected(scene.stack) as client:
        jetstream = client.jetstream(timeout=5)
        state = (await jetstream.stream_info(Stream.EVENTS)).state
        await jetstream.purge_stream(Stream.EVENTS, seq=(state.first_seq + state.last_seq) // 2)
    await _rebuild_once(scene)
    await asyncio.sleep(WARM_UP)


async def _rebuild_once(scene: Scene) -> None:
    before = await stored(scene.stack)
    started = asyncio.get_running_loop().time()
    status, last_lines = await scene.stack.run(_REBUILD)
    seconds = asyncio.get_running_loop().time() - started
    rows = await stored(scene.stack)
    scene.notes.append(f"{before} messages were rebuilt in {seconds:.1f} s: {' '.join(last_lines[-1:])}")
    scene.expect(status == 0, f"the rebuild failed: {' '.join(last_lines)}")
    scene.expect(rows >= before, f"{before - rows} messages are missing after the rebuild")


async def _fill_disk(scene: Scene) -> None:
    await asyncio.sleep(WARM_UP)
    async with faults.full_disk(scene.stack):
        started = asyncio.get_running_loop().time()
        await asyncio.sleep(scene.pick(short=11, full=40))  # each response may take 5 s
        answers = scene.load.record.since(started, "send", "webhook")
        refused = sum(not answer.is_accepted for answer in answers)
        scene.note_latency(f"while the disk was full, {refused} not accepted", answers)
        scene.expect(refused > 0, "the disk was not full")
    await scene.stack.until_back(NATS)
    await asyncio.sleep(WARM_UP)


async def _damage_consumers(scene: Scene) -> None:
    """Cut the state of consumers in half while NATS is down, and mend them as the runbook says."""
    await asyncio.sleep(2 * WARM_UP)
    folders = {consumer.name: _folder_of(scene.stack, consumer) for consumer in _DAMAGED}
    async with faults.away(scene.stack, NATS):
        for folder in folders.values():
            state = folder / "o.dat"
            state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])
    status, last_lines = await scene.stack.run(_PROVISION)
    report = " ".join(last_lines)
    scene.expect(status != 0, "no consumer was damaged")
    damaged = [name for name in folders if name in report]
    scene.notes.append(f"cannot be created at first: {', '.join(damaged)}")
    for name in damaged:
        shutil.rmtree(folders[name])
    status, last_lines = await scene.stack.run(_PROVISION)
    scene.expect(status == 0, f"bin/provision failed: {' '.join(last_lines)}")
    await asyncio.sleep(WARM_UP)


def _folder_of(stack: Stack, consumer: Consumer) -> Path:
    return stack.nats_folder / "jetstream" / "$G" / "streams" / consumer.stream / "obs" / consumer.name


async def _age_out(scene: Scene) -> None:
    """Let messages be dropped because of their age while ingest is down."""
    await asyncio.sleep(2 * WARM_UP)
    async with faults.connected(scene.stack) as client:
        jetstream = client.jetstream(timeout=5)
        async with faults.hanging(scene.stack, _INGEST, wait=False):
            await asyncio.sleep(WARM_UP)
            processed = {consumer: await _processed(jetstream, consumer) for consumer in INGEST_CONSUMERS}
            async with faults.ageing(scene.stack, _AGEING, seconds=_AGE):
                await asyncio.sleep(_AGE + scene.pick(short=2, full=8))
            expected = sum(
                [
                    await _note_lost(scene, jetstream, consumer, sequence)
                    for consumer, sequence in processed.items()
                ]
            )
            await faults.restart(scene.stack, _INGEST, Signals.SIGKILL)
    scene.expect(expected > 0, "no message was dropped")
    counted = await _counted(scene.stack, expected)
    scene.lost = counted + len(scene.dead_letters)
    scene.notes.append(f"{expected} messages were dropped before ingest got them, and {counted} were counted")
    scene.notes.append(f"{len(scene.dead_letters)} messages that ingest had got may be dead letters")
    scene.expect(counted == expected, f"{counted} instead of {expected} lost messages were counted")


async def _processed(jetstream: JetStreamContext, consumer: Consumer) -> int:
    """Return the sequence up to which the consumer has processed its stream."""
    info = await jetstream.consumer_info(consumer.stream, consumer.name)
    if info.ack_floor is None:
        raise ChaosError(f"NATS does not know what {consumer.name} has processed")
    return int(info.ack_floor.stream_seq)


async def _note_lost(scene: Scene, jetstream: JetStreamContext, consumer: Consumer, processed: int) -> int:
    """Return how many messages are no longer in the stream and have not been delivered to the consumer.

    Those that were delivered but not processed become dead letters.
    """
    state = (await jetstream.stream_info(consumer.stream)).state
    info = await jetstream.consumer_info(consumer.stream, consumer.name)
    if info.delivered is None:
        raise ChaosError(f"NATS does not know what {consumer.name} has received")
    received = int(info.delivered.stream_seq)
    for sequence in range(processed + 1, min(received + 1, state.first_seq)):
        scene.dead_letters[id_of_unreadable(consumer.stream, sequence)] = "terminated"
    return max(0, int(state.first_seq) - received - 1)


async def _counted(stack: Stack, expected: int) -> int:
    """Return the number of lost messages that ingest has counted once it has counted as many as expected."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _COUNTED_WITHIN
    while True:
        counted = await total(stack, stack.health_url(_INGEST), "messaging_lost_total")
        if counted >= expected or loop.time() > deadline:
            return counted
        await asyncio.sleep(WARM_UP)


SCENARIOS = (
    Scenario(
        name="rebuild",
        about="the database is rebuilt under load, also after an old part of EVENTS was purged",
        play=_rebuild,
        may_repeat=False,
    ),
    Scenario(
        name="damaged-consumer",
        about="the state files of consumers are cut while NATS is down, and bin/provision mends them",
        play=_damage_consumers,
        disturbs=frozenset({NATS}),
    ),
    Scenario(
        name="disk-full",
        about="the disk of NATS is really full for a while",
        play=_fill_disk,
        disturbs=frozenset({NATS}),
        disk=64,
        in_short=False,
    ),
    Scenario(
        name="aged-out",
        about="messages become too old for their streams while ingest is down: all losses are counted",
        play=_age_out,
        disturbs=frozenset({_INGEST}),
        settings={"INGESTS": "1"},
        may_repeat=False,
        settle_seconds=20,
        in_short=False,
    ),
)
