"""The assignment of shards to senders, as the senders announce it."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from nats.aio.msg import Msg

from dev.chaos.errors import ChaosError
from dev.chaos.faults import connected
from dev.chaos.stack import Stack
from shared.bus.membership import Announcement, State
from shared.bus.topology import sender_shards
from shared.channels import Channel
from shared.message import Priority

_SILENT_SECONDS = 2.5
_DIVIDED_SECONDS = 30
_POLL_INTERVAL = 0.05


class Shares:
    """The last announcement of each sender for each channel."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], tuple[Announcement, float]] = {}

    async def hear(self, msg: Msg) -> None:
        announcement = Announcement.model_validate_json(msg.data)
        channel = msg.subject.rpartition(".")[2]
        now = asyncio.get_running_loop().time()
        self._last[channel, announcement.member] = (announcement, now)

    async def until_divided(self, members: int) -> float:
        """Wait until this number of senders hold all shards, each of them an equal share.

        Returns:
            The seconds that it took.

        Raises:
            ChaosError: it takes longer than 30 seconds.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        while not all(self._is_divided(channel, members) for channel in Channel):
            if loop.time() > started + _DIVIDED_SECONDS:
                raise ChaosError(f"{members} senders did not divide the shards: {self._describe()}")
            await asyncio.sleep(_POLL_INTERVAL)
        return loop.time() - started

    def _is_divided(self, channel: Channel, members: int) -> bool:
        """Return whether the shards of each priority are held by one sender each, and evenly."""
        current = list(self._current(channel))
        names = [shard.name for shard in sender_shards(channel)]
        for priority in Priority:
            shards = {name for name in names if f"-{priority}-" in name}
            held = [announcement.held & shards for announcement in current]
            sizes = [len(each) for each in held]
            if sum(sizes) != len(shards) or set().union(*held) != shards or max(sizes) - min(sizes) > 1:
                return False
        return len(current) == members

    def _current(self, channel: str) -> Iterable[Announcement]:
        """Return the announcements of the senders that have neither left nor fallen silent."""
        since = asyncio.get_running_loop().time() - _SILENT_SECONDS
        return [
            announcement
            for (of, _), (announcement, heard_at) in self._last.items()
            if of == channel and heard_at > since and not _has_left(announcement)
        ]

    def _describe(self) -> str:
        return "; ".join(
            f"{channel}: {sorted((a.state.value, len(a.held)) for a in self._current(channel))}"
            for channel in Channel
        )


def _has_left(announcement: Announcement) -> bool:
    return announcement.state is State.LEAVING and not announcement.held


@asynccontextmanager
async def watching(stack: Stack) -> AsyncIterator[Shares]:
    """Listen to the announcements for the block."""
    shares = Shares()
    async with connected(stack) as client:
        await client.subscribe("presence.sender.*", cb=shares.hear)
        yield shares
