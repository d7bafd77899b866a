"""PostgreSQL and NATS hang, are down or are full."""

import asyncio
from collections.abc import Iterable
from statistics import median

from dev.chaos import faults
from dev.chaos.account import accepted_by_providers
from dev.chaos.errors import ChaosError
from dev.chaos.load import Answer
from dev.chaos.scene import WARM_UP, Scenario, Scene
from dev.chaos.stack import NATS, POSTGRES

_IMMEDIATE = 0.1
"""The longest time, in seconds, for a response that does not depend on another process."""

TWILIO_AND_SENDGRID = {
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


async def _full_disk(scene: Scene) -> None:
    await asyncio.sleep(WARM_UP)
    async with faults.full(scene.stack):
        await asyncio.sleep(1)
        started = asyncio.get_running_loop().time()
        await asyncio.sleep(scene.pick(short=5, full=40))
        answers = scene.load.record.since(started, "send", "webhook")
        accepted = sum(answer.is_accepted for answer in answers)
        scene.note_latency("refusals while the streams were full", answers)
        scene.expect(not accepted, f"{accepted} requests were accepted while the streams were full")
    await asyncio.sleep(1)


async def _postgres_hangs(scene: Scene) -> None:
    await asyncio.sleep(WARM_UP)
    async with faults.hanging(scene.stack, POSTGRES):
        await _watch_outage(scene, "while PostgreSQL hangs", scene.pick(short=8, full=30))


async def _postgres_away(scene: Scene) -> None:
    await asyncio.sleep(WARM_UP)
    # The supervisor pauses for 0.5, 1, 2, 4, 8 and 16 s between its attempts. The fault ends shortly before
    # one of them.
    async with faults.away(scene.stack, POSTGRES):
        await _watch_outage(scene, "without PostgreSQL", scene.pick(short=7, full=30))


async def _watch_outage(scene: Scene, when: str, seconds: float) -> None:
    """Expect that sends and webhooks are accepted, and that the messages reach the providers."""
    started = asyncio.get_running_loop().time()
    before = _median_seconds(scene.load.record.since(0, "send", "webhook"))
    sent_before = await accepted_by_providers(scene.stack)
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
    sent = sum((await accepted_by_providers(scene.stack)).values()) - sum(sent_before.values())
    scene.notes.append(f"{when} {accepted} sends were accepted and {sent} messages reached a provider")
    scene.expect(sent > accepted / 2, f"too few messages reached a provider {when}")


def _median_seconds(answers: Iterable[Answer]) -> float:
    return median([answer.seconds for answer in answers] or [0])


async def _nats_hangs(scene: Scene) -> None:
    await asyncio.sleep(WARM_UP)
    async with faults.hanging(scene.stack, NATS):
        await _expect_refusals(scene, "while NATS hangs", scene.pick(short=8, full=30), are_immediate=False)


async def _nats_stutters(scene: Scene) -> None:
    """Make NATS hang repeatedly, each time too shortly for its clients to close their connections."""
    await asyncio.sleep(WARM_UP)
    started = asyncio.get_running_loop().time()
    for _ in range(int(scene.pick(short=4, full=12))):
        async with faults.hanging(scene.stack, NATS, wait=False):
            await asyncio.sleep(scene.random.uniform(2.5, 3.3))
        await asyncio.sleep(scene.random.uniform(0.002, 0.03))
    await scene.stack.until_back(NATS)
    scene.note_latency("while NATS stuttered", scene.load.record.since(started, "send", "webhook"))


async def _nats_away(scene: Scene) -> None:
    await asyncio.sleep(WARM_UP)
    async with faults.away(scene.stack, NATS):
        await _expect_refusals(scene, "without NATS", scene.pick(short=7, full=30), are_immediate=True)


async def _nats_away_for_long(scene: Scene) -> None:
    """Keep NATS down for longer than a claim lasts, while requests to providers are in progress."""
    async with faults.misbehaving(scene.stack, latency_ms=500):
        await asyncio.sleep(2)
        async with faults.away(scene.stack, NATS):  # the supervisor's attempt after 31.5 s succeeds
            await asyncio.sleep(30)


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


async def _kill_each_in_turn(scene: Scene) -> None:
    """Kill the leader of OUTBOUND, then every server once, each time after the cluster is complete again."""
    cluster = scene.stack.cluster
    if cluster is None:
        raise ChaosError("there is no cluster")
    await asyncio.sleep(WARM_UP)
    for node in [await cluster.leader_of("OUTBOUND"), *cluster.nodes]:
        started = asyncio.get_running_loop().time()
        await node.kill()
        await asyncio.sleep(scene.pick(short=2, full=5))
        answers = scene.load.record.since(started, "send", "webhook")
        refused = sum(not answer.is_accepted for answer in answers)
        scene.note_latency(f"without {node.member}, {refused} not accepted", answers)
        await node.start()
        await cluster.until_whole()


SCENARIOS = (
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
        about="NATS is down for a long time, and the providers do not support idempotency keys",
        play=_nats_away_for_long,
        disturbs=frozenset({NATS}),
        settings=TWILIO_AND_SENDGRID,
        may_repeat=False,
        in_short=False,
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
