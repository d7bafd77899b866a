"""The scenarios, in the order in which they are played."""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from signal import Signals
from statistics import median
from typing import Any

from dev.chaos import faults, poison
from dev.chaos.account import Findings
from dev.chaos.errors import ChaosError
from dev.chaos.load import CHANNELS, Answer, by_conversation
from dev.chaos.scene import Play, Scenario, Scene
from dev.chaos.stack import EVERYTHING, GATEWAY, INGESTS, NATS, POSTGRES, SENDERS, SERVICES, Stack

_END_SECONDS = 10
"""The longest time that a service may take to stop."""

_HANDED_OVER_SECONDS = 15
"""Half of the time after which NATS gives an unacknowledged message to another process."""

_IMMEDIATE = 0.1
"""The longest time in seconds for a response that waits for no other process."""

_WARM_UP = 1.0

_MIB = 1024 * 1024
_MEMORY_LIMIT = 300 * _MIB
"""The limit for each service, however long the backlog is."""


def _kill(*names: str, **behaviour: Any) -> Play:  # noqa: ANN401 - fields of the behaviour
    async def play(scene: Scene) -> None:
        async with faults.misbehaving(scene.stack, **behaviour):
            await asyncio.sleep(_WARM_UP)
            for _ in range(int(scene.pick(short=1, full=4))):
                for name in names:
                    await faults.restart(scene.stack, name, Signals.SIGKILL)
                    await asyncio.sleep(scene.random.uniform(0.2, 1))

    return play


async def _kill_each(scene: Scene) -> None:
    """Kill every program once, in a random order."""
    await asyncio.sleep(_WARM_UP)
    for name in scene.random.sample(EVERYTHING, k=len(EVERYTHING)):
        await faults.restart(scene.stack, name, Signals.SIGKILL)
        scene.notes.append(f"killed {name}")


async def _backlog(scene: Scene) -> None:
    """Make a provider unavailable while many messages are accepted, and watch the memory of the services."""
    stack = scene.stack
    before = {name: stack.memory(name) for name in SERVICES}
    peak = dict(before)
    async with faults.misbehaving(stack, channels=["sms"], status=503):
        watching = asyncio.create_task(_watch_memory(stack, peak))
        await scene.load.burst("sms", int(scene.pick(short=2_000, full=50_000)))
        scene.notes.append(f"{len(scene.load.record.sends)} messages were accepted")
        await asyncio.sleep(scene.pick(short=5, full=60))
    watching.cancel()
    for name in SERVICES:
        scene.notes.append(
            f"{name}: {before[name] / _MIB:.0f} MiB before, at most {peak[name] / _MIB:.0f} MiB"
        )
        scene.expect(peak[name] < _MEMORY_LIMIT, f"{name} used {peak[name] / _MIB:.0f} MiB")


async def _watch_memory(stack: Stack, peak: dict[str, int]) -> None:
    while True:
        await asyncio.sleep(1)
        for name, highest in peak.items():
            peak[name] = max(highest, stack.memory(name))


async def _calm(scene: Scene) -> None:
    await asyncio.sleep(scene.pick(short=4, full=20))


def _check_order(scene: Scene, findings: Findings) -> None:
    conversations = 0
    for channel in CHANNELS:
        order = {sent.name: number for number, sent in enumerate(findings.sent.get(channel, ()))}
        items = [item for item in scene.load.record.sends if item.channel == channel and item.name in order]
        for conversation in by_conversation(items):
            conversations += 1
            numbers = [order[item.name] for item in conversation]
            scene.expect(numbers == sorted(numbers), f"{conversation[0].place[0]} was sent out of order")
    scene.notes.append(f"{conversations} conversations were sent in the order of acceptance")


async def _terminate_each(scene: Scene) -> None:
    async with faults.misbehaving(scene.stack, latency_ms=150):  # so that there are requests in progress
        await asyncio.sleep(_WARM_UP)
        for name in (GATEWAY, INGESTS[0], SENDERS[0]) if scene.is_short else SERVICES:
            seconds = await faults.restart(scene.stack, name, Signals.SIGTERM)
            scene.notes.append(f"{name} ended in {seconds:.1f} s")
            scene.expect(seconds <= _END_SECONDS, f"{name} took {seconds:.1f} s to end")


def _check_handed_over(scene: Scene, findings: Findings) -> None:
    sent_at = {sent.name: sent.at for channel in CHANNELS for sent in findings.sent.get(channel, ())}
    waits = [
        (sent_at[item.name] - item.accepted_at).total_seconds()
        for item in scene.load.record.sends
        if item.accepted_at and item.name in sent_at
    ]
    scene.notes.append(f"the longest time from acceptance to the provider was {max(waits):.1f} s")
    scene.expect(max(waits) < _HANDED_OVER_SECONDS, "a message waited for its redelivery")


async def _postgres_away(scene: Scene) -> None:
    await asyncio.sleep(_WARM_UP)
    # The supervisor pauses for 0.5, 1, 2, 4, 8 and 16 s between its attempts. The fault ends shortly before
    # one of them.
    async with faults.away(scene.stack, POSTGRES):
        await _watch_outage(scene, "without PostgreSQL", scene.pick(short=7, full=30))


async def _postgres_hangs(scene: Scene) -> None:
    await asyncio.sleep(_WARM_UP)
    async with faults.hanging(scene.stack, POSTGRES):
        await _watch_outage(scene, "while PostgreSQL hangs", scene.pick(short=8, full=30))


async def _watch_outage(scene: Scene, when: str, seconds: float) -> None:
    """Expect that sends and webhooks are accepted, and that the messages reach the providers."""
    started = asyncio.get_running_loop().time()
    before = _median_seconds(scene.load.record.since(0, "send", "webhook"))
    sent_before = await _sent(scene)
    await asyncio.sleep(seconds)
    answers = scene.load.record.since(started, "send", "webhook")
    refused = sum(not answer.is_accepted for answer in answers)
    scene.expect(not refused, f"{refused} requests were refused {when}")
    scene.note_latency(f"sends and webhooks {when}", answers)
    scene.expect(
        _median_seconds(answers) < max(_IMMEDIATE, 3 * before), f"sends and webhooks were slow {when}"
    )
    scene.note_latency(f"reads {when}", scene.load.record.since(started, "read"))
    accepted = sum(answer.is_accepted for answer in scene.load.record.since(started, "send"))
    sent = sum((await _sent(scene)).values()) - sum(sent_before.values())
    scene.notes.append(f"{when} {accepted} sends were accepted and {sent} messages reached a provider")
    scene.expect(sent > accepted / 2, f"too few messages reached a provider {when}")


def _median_seconds(answers: Iterable[Answer]) -> float:
    return median([answer.seconds for answer in answers] or [0])


async def _sent(scene: Scene) -> Mapping[str, int]:
    """Count the messages that the provider of each channel has accepted."""
    counts = {}
    for channel, url in scene.stack.provider_urls.items():
        response = await scene.stack.http.get(f"{url}/mock/stats")
        counts[channel] = int(response.raise_for_status().json()["accepted"])
    return counts


async def _nats_away(scene: Scene) -> None:
    await asyncio.sleep(_WARM_UP)
    async with faults.away(scene.stack, NATS):
        await _expect_refusals(scene, "without NATS", scene.pick(short=7, full=30), are_immediate=True)


async def _nats_away_for_long(scene: Scene) -> None:
    """Keep NATS away for longer than a claim lasts, while requests to providers are in progress."""
    async with faults.misbehaving(scene.stack, latency_ms=500):
        await asyncio.sleep(2)
        async with faults.away(scene.stack, NATS):  # the supervisor's attempt after 31.5 s succeeds
            await asyncio.sleep(30)


async def _nats_hangs(scene: Scene) -> None:
    await asyncio.sleep(_WARM_UP)
    async with faults.hanging(scene.stack, NATS):
        await _expect_refusals(scene, "while NATS hangs", scene.pick(short=8, full=30), are_immediate=False)


async def _nats_stutters(scene: Scene) -> None:
    """Make NATS hang repeatedly, each time too shortly for its clients to close their connections."""
    await asyncio.sleep(_WARM_UP)
    started = asyncio.get_running_loop().time()
    for _ in range(int(scene.pick(short=4, full=12))):
        async with faults.hanging(scene.stack, NATS, wait=False):
            await asyncio.sleep(scene.random.uniform(2.5, 3.3))
        await asyncio.sleep(scene.random.uniform(0.002, 0.03))
    await scene.stack.until_back(NATS)
    scene.note_latency("while NATS stuttered", scene.load.record.since(started, "send", "webhook"))


async def _expect_refusals(scene: Scene, when: str, seconds: float, *, are_immediate: bool) -> None:
    await asyncio.sleep(0.5)  # for the requests in progress
    started = asyncio.get_running_loop().time()
    await asyncio.sleep(seconds)
    answers = scene.load.record.since(started, "send", "webhook")
    scene.note_latency(f"refusals {when}", answers)
    accepted = sum(answer.is_accepted for answer in answers)
    scene.expect(not accepted, f"{accepted} requests were accepted {when}")
    scene.expect(len(answers) > 0, f"there were no responses {when}")
    if are_immediate:
        scene.expect(_median_seconds(answers) < _IMMEDIATE, f"refusals {when} were slow")


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
        await asyncio.sleep(_WARM_UP)
        before = await _sent(scene)
        started = asyncio.get_running_loop().time()
        await asyncio.sleep(scene.pick(short=3, full=30))
        after = await _sent(scene)
    email = after["email"] - before["email"]
    answers = [answer for answer in scene.load.record.since(started, "send") if answer.is_accepted]
    scene.notes.append(f"while the SMS provider hung, {email} e-mails were sent")
    scene.expect(after["sms"] == before["sms"], "the SMS provider did not hang")
    scene.expect(email > len(answers) / 2 * 0.8, "too few e-mails were sent")


async def _full_disk(scene: Scene) -> None:
    await asyncio.sleep(_WARM_UP)
    async with faults.full(scene.stack):
        await asyncio.sleep(1)
        started = asyncio.get_running_loop().time()
        await asyncio.sleep(scene.pick(short=5, full=40))
        answers = scene.load.record.since(started, "send", "webhook")
        accepted = sum(answer.is_accepted for answer in answers)
        scene.note_latency("refusals while the streams were full", answers)
        scene.expect(not accepted, f"{accepted} requests were accepted while the streams were full")
    await asyncio.sleep(1)


async def _everything(scene: Scene) -> None:
    """Inject random faults one after the other."""
    loop = asyncio.get_running_loop()
    until = loop.time() + scene.pick(short=15, full=90)
    await asyncio.sleep(_WARM_UP)
    while loop.time() < until:
        scene.notes.append(await _random_fault(scene))
        await asyncio.sleep(scene.random.uniform(0, 1.5))


async def _random_fault(scene: Scene) -> str:
    """Inject a random fault, and return its description."""
    stack, random = scene.stack, scene.random
    seconds = random.uniform(0.5, 3)
    match random.choice(["kill", "kill", "kill", "terminate", "hang", "misbehave", "misbehave"]):
        case "kill":
            names = random.sample(EVERYTHING, k=random.choice([1, 1, 2, 3]))
            await asyncio.gather(*(faults.end(stack, name, Signals.SIGKILL) for name in names))
            await asyncio.gather(*(stack.until_back(name) for name in names))
            return f"killed {', '.join(names)}"
        case "terminate":
            name = random.choice(SERVICES)
            await faults.restart(stack, name, Signals.SIGTERM)
            return f"terminated {name}"
        case "hang":
            name = random.choice([NATS, POSTGRES, *INGESTS])
            async with faults.hanging(stack, name):
                await asyncio.sleep(seconds)
            return f"{name} hung for {seconds:.1f} s"
        case _:
            behaviour = random.choice(_MISBEHAVIOURS)
            channels = random.choice([["sms"], ["email"], CHANNELS])
            async with faults.misbehaving(stack, channels=channels, **behaviour):
                await asyncio.sleep(seconds)
            return f"{', '.join(channels)} misbehaved for {seconds:.1f} s: {behaviour}"


async def _kill_each_in_turn(scene: Scene) -> None:
    """Kill the leader of OUTBOUND, then every server once, each time after the cluster is whole again."""
    cluster = scene.stack.cluster
    if cluster is None:
        raise ChaosError("there is no cluster")
    await asyncio.sleep(_WARM_UP)
    for node in [await cluster.leader_of("OUTBOUND"), *cluster.nodes]:
        started = asyncio.get_running_loop().time()
        await node.kill()
        await asyncio.sleep(scene.pick(short=2, full=5))
        answers = scene.load.record.since(started, "send", "webhook")
        refused = sum(not answer.is_accepted for answer in answers)
        scene.note_latency(f"without {node.member}, {refused} not accepted", answers)
        await node.start()
        await cluster.until_whole()


_MISBEHAVIOURS: tuple[dict[str, Any], ...] = (
    {"status": 500, "rate": 0.3},
    {"status": 429, "retry_after": 2},
    {"status": 503, "html": True},
    {"hang": True, "rate": 0.5},
    {"drop_connection": True, "rate": 0.5},
    {"ambiguous": True, "rate": 0.5},
    {"latency_ms": 400},
)


_TWILIO_AND_SENDGRID = {
    "SMS_PROVIDERS": "twilio",
    "TWILIO_URL": "http://127.0.0.1:{sms}",
    "TWILIO_ACCOUNT_SID": f"AC{0:032}",
    "TWILIO_AUTH_TOKEN": f"{0:032}",
    "EMAIL_PROVIDERS": "sendgrid",
    "SENDGRID_URL": "http://127.0.0.1:{email}",
    "SENDGRID_API_KEY": "SG.chaos",
    "PUBLIC_BASE_URL": "http://127.0.0.1:{gateway}",
}
"""Settings that send through the mocks of Twilio and SendGrid."""


SCENARIOS = (
    Scenario(
        name="order",
        about="nothing fails: the messages of a conversation are sent in order, by three senders",
        play=_calm,
        check=_check_order,
        rate=60,
        may_repeat=False,
    ),
    Scenario(
        name="poison",
        about="every stream gets garbage, invalid events and events of an unknown version",
        play=poison.play,
        check=poison.check,
        may_repeat=False,
    ),
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
        about="a provider is unavailable while 50,000 messages wait for it; the services' memory is limited",
        play=_backlog,
        in_short=False,
        settle_seconds=900,
    ),
    Scenario(name="full-disk", about="the streams are full for a while", play=_full_disk),
    Scenario(
        name="postgres-hangs",
        about="PostgreSQL hangs",
        play=_postgres_hangs,
        may_repeat=False,
    ),
    Scenario(name="nats-hangs", about="NATS hangs", play=_nats_hangs),
    Scenario(
        name="nats-stutters",
        about="NATS hangs repeatedly for a short time, and its connections stay open",
        play=_nats_stutters,
        in_short=False,
    ),
    Scenario(
        name="postgres-away",
        about="PostgreSQL is killed and does not come back for a while",
        play=_postgres_away,
        disturbs=frozenset({POSTGRES}),
        may_repeat=False,
    ),
    Scenario(
        name="nats-away",
        about="NATS is killed and does not come back for a while",
        play=_nats_away,
        disturbs=frozenset({NATS}),
    ),
    Scenario(
        name="no-keys",
        about="NATS is away for a long time, and the providers do not know idempotency keys",
        play=_nats_away_for_long,
        disturbs=frozenset({NATS}),
        settings=_TWILIO_AND_SENDGRID,
        may_repeat=False,
        in_short=False,
    ),
    Scenario(
        name="terminate",
        about="SIGTERM of each service: its messages are finished or handed back",
        play=_terminate_each,
        check=_check_handed_over,
        disturbs=frozenset(SERVICES),
        may_repeat=False,
    ),
    Scenario(
        name="kill-each",
        about="kill -9 of every program, one after the other",
        play=_kill_each,
        disturbs=frozenset(EVERYTHING),
    ),
    Scenario(
        name="kill-gateway",
        about="kill -9 of the gateway",
        play=_kill(GATEWAY),
        disturbs=frozenset({GATEWAY}),
        may_repeat=False,
        in_short=False,
    ),
    Scenario(
        name="kill-ingest",
        about="kill -9 of both ingests",
        play=_kill(*INGESTS),
        disturbs=frozenset(INGESTS),
        may_repeat=False,
        in_short=False,
    ),
    Scenario(
        name="kill-sender",
        about="kill -9 of the three senders during their requests",
        play=_kill(*SENDERS, latency_ms=200),
        disturbs=frozenset(SENDERS),
        in_short=False,
    ),
    Scenario(
        name="kill-retrying",
        about="kill -9 of the senders while 40 % of the providers' responses are 500",
        play=_kill(*SENDERS, status=500, rate=0.4),
        disturbs=frozenset(SENDERS),
        in_short=False,
    ),
    Scenario(
        name="kill-postgres",
        about="kill -9 of PostgreSQL",
        play=_kill(POSTGRES),
        disturbs=frozenset({POSTGRES}),
        may_repeat=False,
        in_short=False,
    ),
    Scenario(
        name="kill-nats",
        about="kill -9 of NATS",
        play=_kill(NATS),
        disturbs=frozenset({NATS}),
        in_short=False,
    ),
    Scenario(
        name="everything",
        about="random faults",
        play=_everything,
        disturbs=frozenset(EVERYTHING),
        settle_seconds=240,
    ),
    Scenario(
        name="cluster",
        about="three nats-servers with three replicas: the leader is killed, then each in turn",
        play=_kill_each_in_turn,
        cluster=True,
        rate=30,
        in_short=False,
    ),
)
