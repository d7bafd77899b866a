"""A wall clock that is wrong for some processes only, for which a C compiler is needed."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

from dev.chaos.errors import ChaosError, NotPossibleError
from dev.chaos.faults import run
from dev.chaos.stack import Stack

_SOURCE = Path(__file__).with_suffix(".c")
_LIBRARY = "clock.so"
_SET_SECONDS = 10
_TOLERANCE = timedelta(minutes=1)


class WrongClock:
    """The wall clock of the processes that are started with `wrapper`; it is right at first.

    Their monotonic clock is always right, as on a host whose time is set.

    Args:
        folder: the folder of the library, and of the clock's setting.
        name: the name of the setting.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._error = folder / f"error-of-{name}"
        self._error.write_bytes(struct.pack("q", 0))
        self.wrapper = ("env", f"LD_PRELOAD={folder / _LIBRARY}", f"CLOCK_ERROR={self._error}")

    @asynccontextmanager
    async def wrong_by(self, stack: Stack, error: timedelta, url: str) -> AsyncIterator[None]:
        """Set the clock ahead by `error`, which may be negative, during the block.

        Args:
            stack: the stack.
            error: the difference from the actual time.
            url: the URL of the health server of a process, which shows that its clock is wrong.

        Raises:
            ChaosError: the clock of the process does not change.
        """
        try:
            self._set(error)
            await _until_wrong_by(stack, error, url)
            yield
        finally:
            self._set(timedelta(0))
        await _until_wrong_by(stack, timedelta(0), url)

    def _set(self, error: timedelta) -> None:
        with self._error.open("r+b") as file:  # the processes have mapped it into their memory
            file.write(struct.pack("q", int(error.total_seconds())))


async def build_library(folder: Path) -> None:
    """Build the library that makes a clock wrong.

    Raises:
        NotPossibleError: there is no C compiler.
    """
    command = ("cc", "-shared", "-fPIC", "-O1", "-o", str(folder / _LIBRARY), str(_SOURCE), "-ldl")
    if await run(*command):
        raise NotPossibleError("a wrong clock needs a C compiler")


async def _until_wrong_by(stack: Stack, error: timedelta, url: str) -> None:
    """Wait until the `Date` in the responses of the process shows the error."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_SET_SECONDS):
            while abs(await _error_of(stack, url) - error) > _TOLERANCE:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            return
    raise ChaosError(f"the clock at {url} is not wrong by {error}")


async def _error_of(stack: Stack, url: str) -> timedelta:
    response = await stack.http.get(f"{url}/healthz")
    return parsedate_to_datetime(response.headers["Date"]) - datetime.now(UTC)
