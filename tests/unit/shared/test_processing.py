"""The order of messages with the same key in a process."""

import asyncio
from datetime import UTC, datetime

from shared.bus.client import Bus
from shared.bus.consumer import Done, Outcome, StreamMessage
from shared.bus.processing import Begin, Processing
from shared.bus.topology import sender_shards
from shared.channels import Channel
from shared.dead_letters import Origin
from shared.errors import BusUnavailableError
from tests.waiting import eventually

SHARD = sender_shards(Channel.SMS)[0]


class Conversation:
    """Processes the messages of a conversation, except one that is refused."""

    def __init__(self, *, refused: int = 0) -> None:
        self.done: list[int] = []
        self.may_go_on = asyncio.Event()
        self.processing = Processing(
            Bus(),
            SHARD,
            self._process,
            key_of=lambda _: "conversation",
            is_able=lambda: True,
            on_finished=lambda: None,
        )
        self._refused = refused

    async def _process(self, message: StreamMessage, _: Begin) -> Outcome:
        await self.may_go_on.wait()
        if message.origin.sequence == self._refused:
            raise BusUnavailableError("not available")
        self.done.append(message.origin.sequence)
        return Done()

    def deliver(self, *sequences: int) -> None:
        for sequence in sequences:
            origin = Origin(stream=SHARD.stream, subject="", consumer=SHARD.name, sequence=sequence)
            self.processing.start(StreamMessage(b"", origin, datetime.now(UTC)), "reply")

    async def until_idle(self) -> None:
        async def is_idle() -> bool:
            return not any(held.task for held in self.processing.held.values())

        await eventually(is_idle)


async def test_messages_that_are_delivered_in_another_order_are_processed_in_that_of_the_stream() -> None:
    conversation = Conversation()
    conversation.deliver(1, 3, 4, 2)
    conversation.may_go_on.set()
    await conversation.until_idle()

    assert conversation.done == [1, 2, 3, 4]


async def test_a_message_that_arrives_late_does_not_overtake_one_that_is_returned() -> None:
    conversation = Conversation(refused=1)
    conversation.may_go_on.set()
    conversation.deliver(1)
    conversation.processing.stop()
    await conversation.until_idle()
    conversation.deliver(2)
    await conversation.until_idle()

    assert conversation.done == []
