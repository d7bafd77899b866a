"""The rows that the gateway reads, inserted as ingest inserts them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.orm import DeclarativeBase

from shared import suppressions
from shared.channels import Channel, Direction, MessageType, channel_of_address
from shared.db import tables
from shared.dead_letters import DeadLetter, Resolution
from shared.events import suppression_changed
from shared.ids import ConversationKey, conversation_key
from shared.status import Status

START = datetime(2024, 11, 1, 14, tzinfo=UTC)


def minutes(number: float) -> datetime:
    """Return the time this many minutes after `START`."""
    return START + timedelta(minutes=number)


def key_of(*addresses: str) -> ConversationKey:
    """Return the key of the conversation between these addresses."""
    return conversation_key(channel_of_address(addresses[0]), addresses)


class Rows:
    """Inserts rows, each in a transaction of its own unless it is given one."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    async def message(
        self,
        *addresses: str,
        connection: AsyncConnection | None = None,
        **fields: Any,  # noqa: ANN401 - columns
    ) -> UUID:
        """Insert a message from the first address to the last one."""
        if connection is None:
            async with self.engine.begin() as own:
                return await self.message(*addresses, connection=own, **fields)
        channel = channel_of_address(addresses[0])
        is_inbound = fields.get("direction", Direction.INBOUND) is Direction.INBOUND
        row = {
            "id": uuid4(),
            "conversation_id": await _conversation(connection, channel, addresses),
            "channel": channel,
            "direction": Direction.INBOUND,
            "type": MessageType.EMAIL if channel is Channel.EMAIL else MessageType.SMS,
            "from_address": addresses[0],
            "to_address": addresses[-1],
            "body": "Hello",
            "attachments": [],
            "timestamp": START,
            "created_at": fields.get("timestamp", START),
            "provider": "generic_sms" if is_inbound else None,
            "provider_message_id": str(uuid4()) if is_inbound else None,
            **fields,
        }
        await connection.execute(insert(tables.Message).values(row))
        id_: UUID = row["id"]
        return id_

    async def event(self, message: UUID, status: Status, **fields: Any) -> None:  # noqa: ANN401 - columns
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
        await self._insert(tables.MessageEvent, row)

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
        await self._insert(tables.DeliveryReceipt, row)

    async def dead_letter(self, dead_letter: DeadLetter, at: datetime = START) -> None:
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
        await self._insert(tables.DeadLetter, row)

    async def resolution(
        self,
        dead_letter: DeadLetter,
        resolution: Resolution,
        **fields: Any,  # noqa: ANN401 - columns
    ) -> None:
        row = {
            "dead_letter_id": dead_letter.id,
            "resolution": resolution,
            "reason": "a test",
            "resolved_by": "support",
            "resolved_at": START,
            **fields,
        }
        await self._insert(tables.DeadLetterResolution, row)

    async def suppression(self, change: suppressions.SuppressionChange) -> None:
        row = {
            **change.model_dump(exclude={"by", "cause"}),
            "id": suppression_changed(change).id,
            "key": change.key,
            "changed_by": change.by,
        }
        await self._insert(tables.SuppressionChange, row)

    async def _insert(self, table: type[DeclarativeBase], row: dict[str, Any]) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(insert(table).values(row))


async def _conversation(connection: AsyncConnection, channel: Channel, addresses: tuple[str, ...]) -> int:
    key = conversation_key(channel, addresses)
    conversations, participants = tables.Conversation, tables.Participant
    await connection.execute(insert(conversations).values(key=key, channel=channel).on_conflict_do_nothing())
    id_ = (await connection.execute(select(conversations.id).where(conversations.key == key))).scalar_one()
    for address in set(addresses):
        await connection.execute(
            insert(participants).values(address=address, channel=channel).on_conflict_do_nothing()
        )
        participant = select(participants.id).where(participants.address == address).scalar_subquery()
        await connection.execute(
            insert(tables.ConversationParticipant)
            .values(conversation_id=id_, participant_id=participant)
            .on_conflict_do_nothing()
        )
    return id_
