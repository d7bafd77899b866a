"""The processes of a group, which divide shards among themselves based on their announcements.

Every process announces its state and the shards that it holds, at intervals and whenever they change. From
these announcements, all processes compute the same shares. A process takes over a shard only after its former
holder has released it, or is silent, so that no two processes handle the messages of a conversation at the
same time. The announcements are not stored (core NATS): a process that dies leaves nothing behind.
"""

import asyncio
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from uuid import uuid4

import nats.errors
from nats.aio.msg import Msg
from pydantic import BaseModel, ValidationError

from shared import supervision
from shared.bus.client import Bus
from shared.errors import BusUnavailableError

_INTERVAL = 0.75
_TIMEOUT = 2.5
"""Seconds since its last announcement after which a process is considered dead."""

_ANSWER_TIME = 0.25
"""Seconds that the others have to answer the first announcement of a process."""

_CONNECTION_ERRORS = (nats.errors.Error, OSError, TimeoutError, BusUnavailableError)


class State(StrEnum):
    """The ability of a process to handle messages.

    Attributes:
        READY: it can process them.
        TRYING: it could not process the last ones, and is about to try another one.
        UNABLE: it cannot process any at present.
        LEAVING: it takes no more shards.
    """

    READY = "ready"
    TRYING = "trying"
    UNABLE = "unable"
    LEAVING = "leaving"


class Announcement(BaseModel, frozen=True):
    """The announcement of a process: its state and the shards that it holds."""

    member: str
    state: State
    held: frozenset[str]


def divide(shards: Sequence[str], held: Mapping[str, Container[str]]) -> dict[str, list[str]]:
    """Divide shards among members evenly, and let each member keep as many of its shards as possible.

    Args:
        shards: all shards.
        held: the shards that each member holds, by its id.
    """
    kept = {member: [shard for shard in shards if shard in held[member]] for member in sorted(held)}
    least, remainder = divmod(len(shards), len(held))
    # Those that hold the most get one more, so that they give up fewer.
    by_size = sorted(kept, key=lambda member: len(kept[member]), reverse=True)
    sizes = {member: least + (number < remainder) for number, member in enumerate(by_size)}
    shares: dict[str, list[str]] = {}
    taken: set[str] = set()
    for member, its_shards in kept.items():
        shares[member] = [shard for shard in its_shards if shard not in taken][: sizes[member]]
        taken.update(shares[member])
    free = [shard for shard in shards if shard not in taken]
    for member, share in shares.items():
        missing = sizes[member] - len(share)
        share.extend(free[:missing])
        del free[:missing]
    return shares


class Membership:
    """The membership of this process in a group.

    Args:
        bus: the connection.
        group: the name of the group.

    Attributes:
        changed: set when the shares may have changed.
    """

    def __init__(self, bus: Bus, group: str) -> None:
        self._bus = bus
        self._subject = f"presence.{group}"
        self._id = uuid4().hex
        self._state = State.READY
        self._held: set[str] = set()
        self._others: dict[str, Announcement] = {}
        self._heard_at: dict[str, float] = {}
        self._heard_self_at = 0.0
        self._checked_at = 0.0
        self._has_joined = False
        self._to_announce = asyncio.Event()
        self.changed = asyncio.Event()

    def share_of(self, shards: Sequence[str]) -> list[str]:
        """Return the shards that this process should hold.

        Each shard belongs to exactly one process, as soon as all of them have heard of each other. While no
        process is ready, all keep their shares: it does not matter which process holds a message, and each
        move counts as a delivery.
        """
        states = {self._id: self._state, **{other.member: other.state for other in self._others.values()}}
        takers = {State.READY, State.TRYING}
        if State.READY not in states.values():
            takers.add(State.UNABLE)
        members = sorted(member for member, state in states.items() if state in takers)
        if not self._has_joined or self._id not in members:
            return []
        held = {self._id: self._held, **{other.member: other.held for other in self._others.values()}}
        return divide(shards, {member: held[member] for member in members})[self._id]

    def is_held_by_others(self, shard: str) -> bool:
        return any(shard in other.held for other in self._others.values())

    def set_state(self, state: State) -> None:
        if state is not self._state and self._state is not State.LEAVING:
            self._state = state
            self._announce_soon()

    def hold(self, shard: str) -> None:
        self._held.add(shard)
        self._announce_soon()

    def release(self, shard: str) -> None:
        self._held.discard(shard)
        self._announce_soon()

    async def run(self) -> None:
        """Announce this process, and listen to the others, until the task is cancelled."""
        while True:
            with suppress(*_CONNECTION_ERRORS):
                await supervision.patiently(self._bus.until_connected())
                subscription = await self._bus.client.subscribe(self._subject, cb=self._hear)
                try:
                    await self._join()
                    while True:
                        supervision.beat()
                        await self._announce()
                        self._check_echo()
                        self._forget_silent()
                        await self._until_next()
                finally:
                    with suppress(*_CONNECTION_ERRORS):
                        await subscription.unsubscribe()
            await asyncio.sleep(_INTERVAL)

    async def leave(self) -> None:
        """Announce that this process has left and no longer holds any shards."""
        self._state = State.LEAVING
        self._held.clear()
        with suppress(*_CONNECTION_ERRORS):
            await self._announce()

    async def _join(self) -> None:
        self._heard_self_at = asyncio.get_running_loop().time()
        self._excuse_silence()  # without a connection, no announcements could arrive
        await self._announce()
        await asyncio.sleep(_ANSWER_TIME)
        self._has_joined = True
        self.changed.set()

    async def _announce(self) -> None:
        self._to_announce.clear()
        announcement = Announcement(member=self._id, state=self._state, held=frozenset(self._held))
        await self._bus.client.publish(self._subject, announcement.model_dump_json().encode())

    def _announce_soon(self) -> None:
        self._to_announce.set()
        self.changed.set()

    async def _until_next(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_INTERVAL):
                await self._to_announce.wait()

    async def _hear(self, msg: Msg) -> None:
        try:
            heard = Announcement.model_validate_json(msg.data)
        except ValidationError:
            return
        if heard.member == self._id:
            self._heard_self_at = asyncio.get_running_loop().time()
            return
        known = self._others.get(heard.member)
        if heard.state is State.LEAVING and not heard.held:
            self._forget([heard.member])
            return
        self._others[heard.member] = heard
        self._heard_at[heard.member] = asyncio.get_running_loop().time()
        if known is None:
            self._to_announce.set()  # a process that has just started learns of this one at once
        if heard != known:
            self.changed.set()

    def _check_echo(self) -> None:
        """Raise TimeoutError if the subscription does not even receive the announcements of this process."""
        if asyncio.get_running_loop().time() > self._heard_self_at + _TIMEOUT:
            raise TimeoutError

    def _forget_silent(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._checked_at > _TIMEOUT:
            self._excuse_silence()  # this process was suspended, and has not read the announcements yet
        self._checked_at = now
        self._forget([member for member, at in self._heard_at.items() if at < now - _TIMEOUT])

    def _excuse_silence(self) -> None:
        self._heard_at = dict.fromkeys(self._others, asyncio.get_running_loop().time())

    def _forget(self, members: Iterable[str]) -> None:
        for member in members:
            if self._others.pop(member, None) is not None:
                self.changed.set()
            self._heard_at.pop(member, None)
