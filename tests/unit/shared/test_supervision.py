"""A process fails when a part of it does. `tests/e2e/test_supervision.py` shows that it then ends."""

import asyncio
import gc
import signal
import subprocess
import sys

import pytest

from shared import supervision
from shared.supervision import Supervisor, beat, patiently, release, running, supervise


@pytest.fixture
def supervisor() -> Supervisor:
    """Create a supervisor without a thread; the test calls `tick`."""
    return Supervisor()


async def turn() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def stand_still() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise ValueError("wrong")


async def tick(supervisor: Supervisor, count: int) -> None:
    for _ in range(count):
        await turn()
        supervisor.tick()


async def test_a_loop_that_does_not_turn_is_stuck(supervisor: Supervisor) -> None:
    supervisor.install()
    task = supervise("lag", stand_still())
    await tick(supervisor, 5)
    assert supervision.failure() is None
    await tick(supervisor, 1)
    assert supervision.failure() == "lag is stuck"
    release(task).cancel()


async def test_a_loop_that_turns_is_not_stuck(supervisor: Supervisor) -> None:
    async def loop() -> None:
        while True:
            beat()
            await asyncio.sleep(0)

    supervisor.install()
    async with running("lag", loop()):
        await tick(supervisor, 50)
    assert supervision.failure() is None


async def test_a_loop_that_waits_patiently_is_not_stuck(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "_TICK", 0)
    supervisor.install()
    async with running("lag", patiently(stand_still())):
        for _ in range(50):
            await asyncio.sleep(0.001)  # timers of the loop have to expire
            supervisor.tick()
    assert supervision.failure() is None


async def test_an_error_in_place_of_a_cancellation_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def replace_the_cancellation() -> None:
        try:
            await stand_still()
        except asyncio.CancelledError:
            raise ConnectionError from None

    waiting = asyncio.create_task(patiently(replace_the_cancellation()))
    await turn()
    waiting.cancel()
    await turn()
    assert waiting.cancelled()
    del waiting
    gc.collect()
    assert caplog.records == []


@pytest.mark.parametrize(
    ("is_cancelled", "failure"), [(True, "was cancelled"), (False, "failed: ValueError")]
)
async def test_a_loop_that_ends_unexpectedly_is_a_failure(
    supervisor: Supervisor, failure: str, *, is_cancelled: bool
) -> None:
    supervisor.install()
    task = supervise("lag", stand_still() if is_cancelled else fail())
    await turn()
    if is_cancelled:
        task.cancel()
    await asyncio.wait({task})
    await turn()
    assert str(supervision.failure()).startswith(f"lag {failure}")


async def test_a_loop_may_be_cancelled_by_its_owner_as_long_as_others_are_left(
    supervisor: Supervisor,
) -> None:
    async def loop() -> None:
        while True:
            beat()
            await asyncio.sleep(0)

    supervisor.install()
    async with running("pauses", loop()):
        async with running("lag", stand_still()):
            await tick(supervisor, 1)
        await tick(supervisor, 10)
        assert supervision.failure() is None
    await tick(supervisor, 1)
    assert supervision.failure() == "no task is left"


async def test_without_a_supervisor_nothing_fails() -> None:
    task = supervise("lag", fail())
    await asyncio.wait({task})
    assert supervision.failure() is None
    assert isinstance(task.exception(), ValueError)


def test_a_process_that_holds_the_lock_of_the_interpreter_is_ended() -> None:
    program = """
import re
from shared import supervision
supervision._LIFETIME = 1
supervisor = supervision.Supervisor()
supervisor.start()
supervisor.tick()
re.match("(a+)+$", 40 * "a" + "b")
"""
    result = subprocess.run([sys.executable, "-c", program], timeout=100, check=False)
    assert result.returncode == -signal.SIGVTALRM
