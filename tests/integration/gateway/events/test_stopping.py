"""A gateway with open streams stops as quickly as without."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.integration.gateway.events.streams import Stream, opened
from tests.ports import free_port
from tests.waiting import eventually

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[4]


async def test_streams_end_with_complete_responses_when_the_process_stops(
    tmp_path: Path, nats_url: str, database_url: str
) -> None:
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "NATS_URL": nats_url,
        "DATABASE_URL": database_url,
        "GATEWAY_PORT": str(port),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.gateway"), cwd=tmp_path, env=environment, stderr=PIPE
    )

    async def is_streaming() -> bool:
        try:
            async with opened(port) as stream:
                return stream.status == 200
        except OSError:
            return False

    async def end_of(stream: Stream) -> int:
        return len(await stream.take(1))

    try:
        await eventually(is_streaming, within=90)
        async with opened(port) as first, opened(port, "?after=0") as second:
            process.send_signal(signal.SIGTERM)
            assert [await end_of(each) for each in (first, second)] == [0, 0]
        _, log = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode in {0, -signal.SIGTERM}
    assert b"Cancel" not in log  # no stream had to be cut off
