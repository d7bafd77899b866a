"""Idempotency keys that are used again, within their retention and after it."""

import asyncio

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from dev.chaos import faults
from dev.chaos.load import CHANNELS, Load
from dev.chaos.scene import WARM_UP, Scenario, Scene
from shared.bus.topology import IDEMPOTENCY_BUCKET
from shared.ids import request_id

_STREAM = f"KV_{IDEMPOTENCY_BUCKET}"
_CLIENT = "anonymous"
_REPETITIONS = 3
_FORGOTTEN_WITHIN = 20.0


async def _use_again(scene: Scene) -> None:
    """Repeat requests while their keys are remembered, and use the keys for other messages afterwards."""
    await asyncio.sleep(WARM_UP)
    for _ in range(int(scene.pick(short=2, full=5))):
        numbers = range(int(scene.pick(short=10, full=40)))
        keys = {f"key-{scene.random.randrange(10**9)}": CHANNELS[number % 2] for number in numbers}
        first = await _use(scene.load, keys)
        async with faults.connected(scene.stack) as client:
            await _forget(client.jetstream(timeout=5), keys)
        second = await _use(scene.load, keys)
        same = sum(first[key] == second[key] for key in keys)
        scene.expect(not same, f"{same} keys returned the old message after they were forgotten")
        scene.notes.append(f"{len(keys)} keys were used for another message after they were forgotten")


async def _use(load: Load, keys: dict[str, str]) -> dict[str, str | None]:
    """Request a message with each key, several times, and return its id."""

    async def use(key: str, channel: str) -> str | None:
        item = await load.send(channel, key=key)
        for _ in range(_REPETITIONS):
            await load.repeat(item, key)
        return item.id

    return dict(zip(keys, await asyncio.gather(*(use(*each) for each in keys.items())), strict=True))


async def _forget(jetstream: JetStreamContext, keys: dict[str, str]) -> None:
    """Make the server drop the records of the keys after a second, because of their age."""
    subjects = [f"$KV.{IDEMPOTENCY_BUCKET}.{request_id(_CLIENT, key)}" for key in keys]
    for subject in subjects:
        record = await jetstream.get_last_msg(_STREAM, subject)
        await jetstream.publish(subject, record.data or b"", headers={"Nats-TTL": "1s"})
    async with asyncio.timeout(_FORGOTTEN_WITHIN):
        for subject in subjects:
            while await _is_stored(jetstream, subject):  # noqa: ASYNC110
                await asyncio.sleep(0.1)


async def _is_stored(jetstream: JetStreamContext, subject: str) -> bool:
    try:
        await jetstream.get_last_msg(_STREAM, subject)
    except NotFoundError:
        return False
    return True


SCENARIO = Scenario(
    name="old-keys",
    about="idempotency keys are reused: they return the same message while remembered, and a new one later",
    play=_use_again,
    may_repeat=False,
)
