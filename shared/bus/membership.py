"""Which processes of a group are running, by the presence that each of them announces."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TypeVar
from uuid import uuid4

import nats.errors
from nats.aio.msg import Msg

from shared.bus.client import Bus
from shared.errors import BusUnavailableError

_INTERVAL = 1.0
_TIMEOUT = 3.5
"""Seconds after its last announcement that a process counts as gone."""

_LEAVING = b"leaving"

T = TypeVar("T")


class Membership:
    """The processes of a group, which divide work among themselves without asking anybody.

    Args:
        bus: the connection.
        group: the name of the group.
    """

    def __init__(self, bus: Bus, group: str) -> None:
        self._bus = bus
        self._subject = f"presence.{group}"
        self._id = uuid4().hex
        self._seen: dict[str, float] = {}
        self._is_leaving = False
        self._is_available = True
        self.changed = asyncio.Event()

    @property
    def is_available(self) -> bool:
        """Whether this process takes a share."""
        return self._is_available and not self._is_leaving

    @is_available.setter
    def is_available(self, value: bool) -> None:
        self._is_available = value

    def share_of(self, items: Sequence[T]) -> list[T]:
        """Return the items that this process takes.

        Each item has exactly one taker while all processes agree on who is there.
        """
        if not self.is_available:
            return []
        members = sorted({self._id, *self._seen})
        return list(items[members.index(self._id) :: len(members)])

    async def run(self) -> None:
        """Announce this process and listen to the others until the task is cancelled."""
        while True:
            with suppress(nats.errors.Error, OSError, TimeoutError, BusUnavailableError):
                await self._bus.until_connected()
                subscription = await self._bus.client.subscribe(self._subject, cb=self._hear)
                try:
                    while True:
                        await self._announce(b"" if self.is_available else _LEAVING)
                        self._expire()
                        await asyncio.sleep(_INTERVAL)
                finally:
                    with suppress(nats.errors.Error, OSError, TimeoutError):
                        await subscription.unsubscribe()
            await asyncio.sleep(_INTERVAL)

    async def leave(self) -> None:
        """Let the others take over the share of this process at once."""
        self._is_leaving = True
        self.changed.set()
        with suppress(nats.errors.Error, OSError, TimeoutError, BusUnavailableError):
            await self._announce(_LEAVING)

    async def _announce(self, word: bytes) -> None:
        await self._bus.client.publish(self._subject, self._id.encode() + b" " + word)

    async def _hear(self, msg: Msg) -> None:
        member, _, word = msg.data.decode().partition(" ")
        if member == self._id:
            return
        if word.encode() == _LEAVING:
            if self._seen.pop(member, None) is not None:
                self.changed.set()
            return
        if member not in self._seen:
            self.changed.set()
        self._seen[member] = asyncio.get_running_loop().time()

    def _expire(self) -> None:
        oldest = asyncio.get_running_loop().time() - _TIMEOUT
        for member in [member for member, seen in self._seen.items() if seen < oldest]:
            del self._seen[member]
            self.changed.set()
