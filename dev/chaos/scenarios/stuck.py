"""Services of which a task or the event loop is stuck or has ended."""

import asyncio
from contextlib import suppress

from dev.chaos.scene import WARM_UP, Scenario, Scene
from dev.local_stack.ports import free_port
from dev.local_stack.servers import HOST

_GONE_WITHIN = 15.0
"""Seconds. It takes ten on a machine that does nothing else."""

_FAULTS = (
    ("sender", "block?assignment of sms"),
    ("ingest", "cancel?reader of ingest-outbound"),
    ("gateway", "block?probe"),
    ("sender", "block-loop"),
    ("ingest", "block?reader of ingest-events"),
    ("gateway", "block-loop"),
    ("sender", "cancel?heartbeats of sender-delayed-sms"),
    ("ingest", "block-loop"),
)
"""The services, and the faults that must end their processes."""


async def _sabotage(scene: Scene) -> None:
    """Let a process do the work of each service until it is stuck; then the supervisor's continues."""
    await asyncio.sleep(WARM_UP)
    for service, fault in _FAULTS[: int(scene.pick(short=3, full=len(_FAULTS)))]:
        seconds = await _until_gone(scene, service, fault)
        scene.notes.append(f"{service} was gone {seconds:.1f} s after {fault}")
        scene.expect(seconds < _GONE_WITHIN, f"{service} did not end within {seconds:.0f} s of {fault}")
    await asyncio.sleep(WARM_UP)


async def _until_gone(scene: Scene, service: str, fault: str) -> float:
    """Return the seconds until the process has ended by itself, at most a little more than the limit."""
    stack = scene.stack
    port = free_port()
    process = await stack.start(service, module=("dev.chaos.sabotage", f"services.{service}", str(port)))
    usual = stack.gateway_url
    if service == "gateway":
        stack.gateway_url = f"http://{HOST}:{process.command.environment['GATEWAY_PORT']}"
    await asyncio.sleep(2 * WARM_UP)  # it takes a part in the work
    loop = asyncio.get_running_loop()
    started = loop.time()
    (await stack.http.post(f"http://{HOST}:{port}/{fault}")).raise_for_status()
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), _GONE_WITHIN)
    seconds = loop.time() - started
    stack.gateway_url = usual
    await process.stop()
    return seconds


SCENARIOS = (
    Scenario(
        name="stuck",
        about="a task or the event loop of a service is stuck: the process ends itself, and nothing is lost",
        play=_sabotage,
        in_short=False,
    ),
)
