import asyncio
import socket
import time

import pytest

from services.sender.deadline import Deadline

SOON = 0.05


def suspend_process() -> None:
    """Block the event loop until every deadline of these tests is over, as SIGSTOP does."""
    time.sleep(4 * SOON)


async def test_a_block_without_a_response_ends_with_a_timeout() -> None:
    with pytest.raises(TimeoutError):
        async with Deadline(asyncio.get_running_loop().time() + SOON):
            await asyncio.Event().wait()


async def test_a_response_that_arrived_during_a_suspension_is_read() -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    loop = asyncio.get_running_loop()
    with theirs:
        async with Deadline(loop.time() + SOON):
            loop.call_soon(theirs.send, b"response")
            loop.call_soon(suspend_process)
            assert await reader.read(100) == b"response"
    writer.close()


async def test_a_deadline_can_be_postponed() -> None:
    loop = asyncio.get_running_loop()
    async with Deadline(loop.time() + SOON) as deadline:
        deadline.reschedule(loop.time() + 60)
        await asyncio.sleep(4 * SOON)


async def test_a_deadline_can_be_brought_forward() -> None:
    loop = asyncio.get_running_loop()

    async def wait() -> None:
        async with Deadline(loop.time() + 60) as deadline:
            deadline.reschedule(loop.time())
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await wait()
