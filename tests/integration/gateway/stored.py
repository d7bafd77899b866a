"""Rows as ingest writes them, for the tests of what the gateway reads."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared import events
from shared.channels import Channel, Direction, MessageType
from shared.db.tables import (
    Conversation,
    ConversationParticipant,
    DeadLetter,
    DeadLetterResolution,
    DeliveryReceipt,
    Message,
    MessageEvent,
    Participant,
)
from shared.ids import conversation_key
from shared.lifecycle import Status

START = datetime(2024, 11, 1, 14, tzinfo=UTC)


def minutes(number: float) -> datetime:
    """Name a moment by its distance from `START`."""
    return START + timedelta(minutes=number)


class Store:
    """Writes; each method is a transaction of its own, unless it is given one."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    async def message(
        self,
        *addresses: str,
        connection: AsyncConnection | None = None,
        **fields: Any,  # noqa: ANN401
    ) -> UUID:
        """Insert a message from the first address to the last."""
        if connection is None:
            async with self.engine.begin() as own:
                return await self.message(*addresses, connection=own, **fields)
        conversation = await _conversation(connection, addresses)
        inbound = fields.get("direction", Direction.INBOUND) == Direction.INBOUND
        row = {
            "id": uuid4(),
            "conversation_id": conversation,
            "direction": Direction.INBOUND,
            "type": MessageType.SMS,
            "from_address": addresses[0],
            "to_address": addresses[-1],
            "body": "Hello",
            "attachments": [],
            "timestamp": START,
            "created_at": START,
            "provider": "generic_sms" if inbound else None,
            "provider_message_id": str(uuid4()) if inbound else None,
            **fields,
        }
        await connection.execute(insert(Message).values(row))
        id_: UUID = row["id"]
        return id_

    async def event(self, message: UUID, status: Status, **fields: Any) -> None:  # noqa: ANN401
        row = {
            "id": uuid4(),
            "message_id": message,
            "status": status,
            "precedence": status.precedence,
            "generation": 0,
            "attempt": 1,
            "occurred_at": START,
            **fields,
        }
        async with self.engine.begin() as connection:
            await connection.execute(insert(MessageEvent).values(row))

    async def receipt(self, provider_message_id: str, status: Status, **fields: Any) -> None:  # noqa: ANN401
        row = {
            "id": uuid4(),
            "provider": "generic_sms",
            "provider_message_id": provider_message_id,
            "status": status,
            "precedence": status.precedence,
            "occurred_at": START,
            **fields,
        }
        async with self.engine.begin() as connection:
            await connection.execute(insert(DeliveryReceipt).values(row))

    async def dead_letter(self, dead_letter: events.DeadLetter, at: datetime = START) -> None:
        row = {
            "id": dead_letter.id,
            "direction": dead_letter.direction,
            "channel": dead_letter.channel,
            "reason": dead_letter.reason,
            "message_id": dead_letter.message_id,
            "generation": dead_letter.generation,
            "content": dead_letter.model_dump(mode="json", by_alias=True),
            "created_at": at,
        }
        async with self.engine.begin() as connection:
            await connection.execute(insert(DeadLetter).values(row))

    async def resolution(
        self,
        dead_letter: events.DeadLetter,
        resolution: events.Resolution,
        **fields: Any,  # noqa: ANN401
    ) -> None:
        row = {
            "dead_letter_id": dead_letter.id,
            "resolution": resolution,
            "reason": "a test",
            "resolved_by": "support",
            "resolved_at": START,
            **fields,
        }
        async with self.engine.begin() as connection:
            await connection.execute(insert(DeadLetterResolution).values(row))


async def _conversation(connection: AsyncConnection, addresses: tuple[str, ...]) -> int:
    key = conversation_key(addresses)
    channel = Channel.EMAIL if "@" in addresses[0] else Channel.SMS
    await connection.execute(insert(Conversation).values(key=key, channel=channel).on_conflict_do_nothing())
    id_ = (await connection.execute(select(Conversation.id).where(Conversation.key == key))).scalar_one()
    for address in set(addresses):
        await connection.execute(
            insert(Participant).values(address=address, channel=channel).on_conflict_do_nothing()
        )
        participant = select(Participant.id).where(Participant.address == address).scalar_subquery()
        await connection.execute(
            insert(ConversationParticipant)
            .values(conversation_id=id_, participant_id=participant)
            .on_conflict_do_nothing()
        )
    return id_
