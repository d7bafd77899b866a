"""Providers that fail, misbehave or are slow."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from dev.chaos import faults, order
from dev.chaos.account import accepted_by_providers
from dev.chaos.scene import WARM_UP, Play, Scenario, Scene
from dev.chaos.stack import SENDERS, SERVICES, Stack
from shared.bus.topology import DELIVERIES_BUCKET, Stream

_MIB = 1024 * 1024

_SETTLED = 5.0
"""Seconds until the circuit breakers of all senders are open."""

_PROBE_INTERVAL = 2.0
"""The `BREAKER_PAUSE` of the stack in seconds: each sender probes the provider once in this time."""

_WRITES_PER_MESSAGE = 6
"""A message that is sent needs fewer writes. A probe is claimed, retried and scheduled."""

_IDLE_SHARE = 0.3
"""The share of a CPU that all senders together may use while messages wait."""

_LEDGER = f"KV_{DELIVERIES_BUCKET}"
_MEMORY_LIMIT = 300 * _MIB
"""The limit for each service, however long the backlog is."""


def _providers(**behaviour: Any) -> Play:  # noqa: ANN401 - fields of the behaviour
    async def play(scene: Scene) -> None:
        async with faults.misbehaving(scene.stack, **behaviour):
            await asyncio.sleep(scene.pick(short=3, full=15))

    return play


async def _too_many_requests(scene: Scene) -> None:
    """Respond with both forms of `Retry-After`."""
    http_date = format_datetime(
        datetime.now(UTC) + timedelta(seconds=scene.pick(short=4, full=12)), usegmt=True
    )
    for retry_after in (2, http_date):
        async with faults.misbehaving(scene.stack, status=429, retry_after=retry_after, rate=0.5):
            await asyncio.sleep(scene.pick(short=2, full=10))


async def _one_provider_dead(scene: Scene) -> None:
    async with faults.misbehaving(scene.stack, channels=["sms"], hang=True):
        await asyncio.sleep(WARM_UP)
        before = await accepted_by_providers(scene.stack)
        started = asyncio.get_running_loop().time()
        await asyncio.sleep(scene.pick(short=3, full=30))
        after = await accepted_by_providers(scene.stack)
    email = after["email"] - before["email"]
    answers = [answer for answer in scene.load.record.since(started, "send") if answer.is_accepted]
    scene.notes.append(f"while the SMS provider hung, {email} e-mails were sent")
    scene.expect(after["sms"] == before["sms"], "the SMS provider did not hang")
    scene.expect(email > len(answers) / 2 * 0.8, "too few e-mails were sent")


async def _backlog(scene: Scene) -> None:
    """Make a provider unavailable while many messages are accepted, and watch the memory of the services."""
    stack = scene.stack
    before = {name: stack.memory(name) for name in SERVICES}
    peak = dict(before)
    async with faults.misbehaving(stack, channels=["sms"], status=503):
        watching = asyncio.create_task(_watch_memory(stack, peak))
        await scene.load.burst("sms", int(scene.pick(short=2_000, full=50_000)))
        scene.notes.append(f"{len(scene.load.record.sends)} messages were accepted")
        await _expect_idle(scene, scene.pick(short=5, full=60))
    watching.cancel()
    for name in SERVICES:
        scene.notes.append(
            f"{name}: {before[name] / _MIB:.0f} MiB before, at most {peak[name] / _MIB:.0f} MiB"
        )
        scene.expect(peak[name] < _MEMORY_LIMIT, f"{name} used {peak[name] / _MIB:.0f} MiB")


async def _expect_idle(scene: Scene, seconds: float) -> None:
    """Expect that waiting messages cost almost nothing: the senders work only for other messages."""
    stack = scene.stack
    await asyncio.sleep(_SETTLED)
    accepted, writes, cpu = await _cost(stack)
    await asyncio.sleep(seconds)
    now_accepted, now_writes, now_cpu = await _cost(stack)
    sent = now_accepted - accepted
    written = now_writes - writes
    used = now_cpu - cpu
    scene.notes.append(
        f"in {seconds:g} s of waiting, the senders sent {sent} other messages, wrote {written} times to the"
        f" ledger and the schedules, and used {used:.1f} s of CPU time"
    )
    probes = seconds / _PROBE_INTERVAL * len(SENDERS)
    limit = _WRITES_PER_MESSAGE * (sent + probes)
    scene.expect(written < limit, f"the senders wrote {written} times while messages waited")
    scene.expect(used < _IDLE_SHARE * seconds, f"the senders used {used:.1f} s of CPU time while waiting")


async def _cost(stack: Stack) -> tuple[int, int, float]:
    """Return the number of messages sent and of writes, and the CPU seconds of all senders, so far."""
    accepted = sum((await accepted_by_providers(stack)).values())
    async with faults.connected(stack) as client:
        jetstream = client.jetstream(timeout=5)
        infos = [await jetstream.stream_info(stream) for stream in (_LEDGER, Stream.DELAYED)]
    return accepted, sum(info.state.last_seq for info in infos), sum(map(stack.cpu_seconds, SENDERS))


async def _watch_memory(stack: Stack, peak: dict[str, int]) -> None:
    while True:
        await asyncio.sleep(1)
        for name, highest in peak.items():
            peak[name] = max(highest, stack.memory(name))


SCENARIOS = (
    Scenario(
        name="http-500",
        about="30 % of the providers' responses are 500",
        play=_providers(status=500, rate=0.3),
    ),
    Scenario(
        name="http-429",
        about="half of the providers' responses are 429, with both forms of Retry-After",
        play=_too_many_requests,
        in_short=False,
    ),
    Scenario(
        name="drop",
        about="providers close the connection without accepting the message",
        play=_providers(drop_connection=True, rate=0.4),
        in_short=False,
    ),
    Scenario(
        name="ambiguous",
        about="providers accept the message and then close the connection",
        play=_providers(ambiguous=True, rate=0.4),
    ),
    Scenario(
        name="html",
        about="providers respond with HTML pages",
        play=_providers(status=503, html=True, rate=0.4),
        in_short=False,
    ),
    Scenario(
        name="hang",
        about="providers never respond",
        play=_providers(hang=True, rate=0.3),
        in_short=False,
    ),
    Scenario(
        name="latency",
        about="providers take 10 s to respond",
        play=_providers(latency_ms=10_000),
        in_short=False,
        settle_seconds=240,
    ),
    Scenario(
        name="slow",
        about="providers take 10 s to respond, and the timeout is 15 s",
        play=_providers(latency_ms=10_000),
        settings={"PROVIDER_TIMEOUT": "15"},
        rate=10,
        in_short=False,
        settle_seconds=240,
        may_repeat=False,
    ),
    Scenario(
        name="one-dead",
        about="one provider hangs, and the other channel is not affected",
        play=_one_provider_dead,
    ),
    Scenario(
        name="backlog",
        about="a provider is unavailable while 50,000 messages wait for it, cheaply and in their order",
        play=_backlog,
        check=order.check,
        in_short=False,
        settle_seconds=900,
    ),
)
