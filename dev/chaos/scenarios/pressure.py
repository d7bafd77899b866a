"""More requests than can be handled, and hardly any."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from statistics import median, quantiles

import httpx

from dev.chaos.load import CHANNELS, Answer, Item
from dev.chaos.scene import WARM_UP, Scenario, Scene

_FLOODING = 1_000
"""Clients at the same time: several times as many as the gateway handles at once."""

_BURST = 300
_RECOVERED = 3
"""After an overload, a burst may take this many times as long as before, on a machine that others use."""

_QUICK = 2.0
"""Seconds for the median of the refusals, of which the flood itself takes a part."""

_WEBHOOKS = 150
"""Webhooks of each mock, which sends 64 at a time. It has to send all of them before the next one."""

_DELIVERED_WITHIN = 15.0
"""Seconds in which a webhook has to arrive afterwards."""

_VISIBLE_WITHIN = 0.1
"""Seconds, on a machine that does nothing else."""

_SLOWDOWN = 3
"""On other machines, this many times the time that acceptance took is added to the limit."""

_GIVEN_UP_AFTER = 10.0


async def _overload(scene: Scene) -> None:
    await asyncio.sleep(WARM_UP)
    usual = await _burst_seconds(scene)
    started = asyncio.get_running_loop().time()
    await scene.load.flood("sms", clients=_FLOODING, seconds=scene.pick(short=5, full=30))
    answers = scene.load.record.since(started, "flood")
    accepted = [answer for answer in answers if answer.is_accepted]
    refused = [answer for answer in answers if answer.status is not None and not answer.is_accepted]
    scene.note_latency(f"{_FLOODING} clients, accepted", accepted)
    scene.note_latency("refused", refused)
    scene.notes.append(f"without an answer: {len(answers) - len(accepted) - len(refused)}")
    scene.expect(bool(accepted), "nothing was accepted during the overload")
    scene.expect(bool(refused), "nothing was refused, so that there was no overload")
    if refused:
        seconds = median([answer.seconds for answer in refused])
        scene.expect(seconds < _QUICK, f"half of the refusals took longer than {seconds:.1f} s")
    afterwards = await _burst_seconds(scene)
    scene.notes.append(
        f"{_BURST} messages took {usual:.1f} s before and {afterwards:.1f} s after the overload"
    )
    scene.expect(afterwards < _RECOVERED * usual + 1, "the rate did not come back after the overload")


async def _burst_seconds(scene: Scene) -> float:
    started = time.monotonic()
    await scene.load.burst("sms", _BURST)
    return time.monotonic() - started


async def _overload_mock(scene: Scene) -> None:
    """Request many webhooks of the mocks at once, without waiting for them; later ones must arrive."""
    await asyncio.sleep(WARM_UP)
    for _ in range(int(scene.pick(short=1, full=5))):
        async with httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=None)) as http:
            urls = [f"{url}/mock/inbound" for url in scene.stack.provider_urls.values()]
            await asyncio.gather(*(_abandon(http, url) for url in urls * _WEBHOOKS))
    started = asyncio.get_running_loop().time()
    answers: list[Answer] = []
    while not answers and asyncio.get_running_loop().time() < started + _DELIVERED_WITHIN:
        await asyncio.sleep(scene.pick(short=1, full=5))
        answers = scene.load.record.since(started, "webhook")
    scene.note_latency("webhooks after the overload", answers)
    scene.expect(any(answer.is_accepted for answer in answers), "no webhook arrives after the overload")


async def _abandon(http: httpx.AsyncClient, url: str) -> None:
    with suppress(httpx.HTTPError, TimeoutError):
        async with asyncio.timeout(1):
            await http.post(url, json={"body": "abandoned"})


async def _be_idle(scene: Scene) -> None:
    """Send single messages after pauses, and measure when each is visible."""
    began = asyncio.get_running_loop().time()
    visible = []
    for number in range(int(scene.pick(short=25, full=150))):
        await asyncio.sleep(scene.random.uniform(0.2, 0.8))
        item = await scene.load.send(CHANNELS[number % len(CHANNELS)])
        visible.append(await _seconds_until_visible(scene, item))
    accepted = [answer.seconds for answer in scene.load.record.since(began, "send")]
    scene.notes.append(f"accepted: {_shown(accepted)}; visible afterwards: {_shown(visible)}")
    for name, of in (("p50", median), ("p99", _p99)):
        limit = _VISIBLE_WITHIN + _SLOWDOWN * of(accepted)
        scene.expect(of(visible) < limit, f"{name} is longer than {limit * 1000:.0f} ms")


async def _seconds_until_visible(scene: Scene, item: Item) -> float:
    started = time.monotonic()
    url = f"{scene.stack.gateway_url}/api/messages/{item.id}"
    while (await scene.stack.http.get(url)).status_code != httpx.codes.OK:
        if time.monotonic() > started + _GIVEN_UP_AFTER:
            break
        await asyncio.sleep(0.005)
    return time.monotonic() - started


def _p99(seconds: Sequence[float]) -> float:
    return quantiles(seconds, n=100, method="inclusive")[-1]


def _shown(seconds: Sequence[float]) -> str:
    return f"p50 {median(seconds) * 1000:.0f} ms, p99 {_p99(seconds) * 1000:.0f} ms"


SCENARIOS = (
    Scenario(
        name="idle",
        about="single messages after pauses are visible at once",
        play=_be_idle,
        rate=1,
        may_repeat=False,
        in_short=False,
    ),
    Scenario(
        name="overload",
        about="far more clients than the gateway can handle: refusals are quick, and the rate comes back",
        play=_overload,
        rate=20,
        may_repeat=False,
    ),
    Scenario(
        name="mock-overload",
        about="far more webhooks than the mocks can send, all of which are abandoned",
        play=_overload_mock,
        may_repeat=False,
        webhooks_may_wait=True,
        in_short=False,
    ),
)
