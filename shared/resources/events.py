"""Events as applications receive them: in webhooks, as server-sent events and on pages.

An event shows the object that it is about as the API would have shown it at that time, so that it is the same
whenever it is rendered.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args
from uuid import UUID

import structlog
from pydantic import AwareDatetime, BaseModel, Field, ValidationError
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.channels import Direction
from shared.db import tables
from shared.db.reader import Reader
from shared.errors import DatabaseUnavailableError
from shared.notifications import Notification, NotificationType
from shared.resources.conversations import ConversationResponse, select_conversations
from shared.resources.dead_letters import DeadLetterResponse, DeadLetterState, ResolutionResponse
from shared.resources.messages import MessageResponse, select_constant_fields
from shared.resources.suppressions import SuppressionResponse
from shared.status import Status

_log = structlog.get_logger()

_REBUILD = text("SELECT to_regnamespace('former') IS NOT NULL")

Fields = Mapping[str, Any]


class Event(BaseModel):
    """Something that happened.

    Attributes:
        type: what happened; each subclass has its own types.
        data: the object that it happened to.
    """

    id: UUID = Field(description="The same whenever the event is delivered")
    type: str
    timestamp: AwareDatetime = Field(description="When it happened")
    sequence: int = Field(
        description="Position of the event; later events have higher numbers", examples=[4711]
    )
    data: Any

    def encode(self) -> bytes:
        """Return the event as JSON, on one line."""
        return self.__pydantic_serializer__.to_json(self, by_alias=True)


class MessageEvent(Event):
    """A message was received, or the status of an outbound message changed."""

    type: Literal[
        "message.received",
        "message.accepted",
        "message.scheduled",
        "message.sent",
        "message.delivered",
        "message.undelivered",
        "message.failed",
        "message.expired",
        "message.canceled",
    ]
    data: MessageResponse = Field(description="The message with the status that it had after the event")


class ConversationEvent(Event):
    """The first message of a conversation was received or accepted."""

    type: Literal["conversation.created"]
    data: ConversationResponse = Field(description="The conversation with its first message")


class SuppressionEvent(Event):
    """A recipient opted out of messages, or opted in again."""

    type: Literal["recipient.opted_out", "recipient.opted_in"]
    data: SuppressionResponse = Field(description="The suppression that begins or ends at `since`")


class DeadLetterEvent(Event):
    """A message could not be processed, or its dead letter was replayed or discarded."""

    type: Literal["dead_letter.created", "dead_letter.resolved"]
    data: DeadLetterResponse


class WebhookEndpointEvent(Event):
    """A webhook endpoint is tested, or was disabled because it had failed for days or responded with 410."""

    type: Literal["webhook_endpoint.disabled", "webhook_endpoint.test"]
    data: dict[str, Any] = Field(description="The endpoint, without its secret")


_EVENTS: tuple[type[Event], ...] = (
    MessageEvent,
    ConversationEvent,
    SuppressionEvent,
    DeadLetterEvent,
    WebhookEndpointEvent,
)

_KIND_OF = {
    NotificationType(type_): kind
    for kind in _EVENTS
    for type_ in get_args(kind.model_fields["type"].annotation)
}


def kind_of(type_: NotificationType) -> type[Event]:
    """Return the class of the events of a type."""
    return _KIND_OF[type_]


AnyEvent = Annotated[
    MessageEvent | ConversationEvent | SuppressionEvent | DeadLetterEvent | WebhookEndpointEvent,
    Field(discriminator="type"),
]


class Renderer:
    """Renders notifications as events."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def render(self, notifications: Mapping[int, Notification]) -> list[Event]:
        """Return the events of notifications, in the same order.

        A notification is left out if its object was deleted, or is not as the API shows it.

        Args:
            notifications: by their sequence.

        Raises:
            DatabaseUnavailableError: the objects cannot be read, or are being restored.
        """
        given = notifications.values()
        objects = await self._load(given)
        events = []
        for sequence, notification in notifications.items():
            try:
                event = _event(sequence, notification, objects)
            except ValidationError:
                _log.exception("event_not_rendered", event_id=str(notification.id), type=notification.type)
                continue
            if event is None:
                await self._require_complete_database()
                _log.warning("event_without_object", event_id=str(notification.id), type=notification.type)
            else:
                events.append(event)
        return events

    async def _load(self, notifications: Collection[Notification]) -> "_Objects":
        messages = {each.message_id for each in notifications if _shows_message(each)}
        conversations = {each.conversation_key for each in notifications if _shows_conversation(each)}
        dead_letters = {each.dead_letter_id for each in notifications if each.dead_letter_id}
        objects = _Objects()
        if messages or conversations or dead_letters:
            await self._reader.read(
                lambda connection: objects.load(connection, messages, conversations, dead_letters)
            )
        return objects

    async def _require_complete_database(self) -> None:
        async def query(connection: AsyncConnection) -> bool:
            return bool(await connection.scalar(_REBUILD))

        if await self._reader.read(query):
            raise DatabaseUnavailableError("the database is being rebuilt")


class _Objects:
    """The rows that notifications are about, by their ids."""

    def __init__(self) -> None:
        self.messages: dict[UUID, Fields] = {}
        self.conversations: dict[UUID, Fields] = {}
        self.dead_letters: dict[UUID, Fields] = {}
        self.resolutions: dict[tuple[UUID, str], Fields] = {}

    async def load(
        self,
        connection: AsyncConnection,
        messages: Collection[UUID | None],
        conversations: Collection[UUID | None],
        dead_letters: Collection[UUID | None],
    ) -> None:
        async def rows(statement: Any) -> Sequence[Fields]:  # noqa: ANN401 - a SELECT
            return [dict(row) for row in (await connection.execute(statement)).mappings()]

        if messages:
            statement = select_constant_fields().where(tables.Message.id.in_(messages))
            self.messages = {row["id"]: row for row in await rows(statement)}
        if conversations:
            statement = select_conversations().where(tables.Conversation.key.in_(conversations))
            self.conversations = {row["key"]: row for row in await rows(statement)}
        if dead_letters:
            letter, resolution = tables.DeadLetter.__table__, tables.DeadLetterResolution.__table__
            found = await rows(select(letter).where(letter.c.id.in_(dead_letters)))
            self.dead_letters = {row["id"]: row for row in found}
            found = await rows(select(resolution).where(resolution.c.dead_letter_id.in_(dead_letters)))
            self.resolutions = {(row["dead_letter_id"], row["resolution"]): row for row in found}


def _shows_message(notification: Notification) -> bool:
    return notification.type.startswith(("message.", "conversation."))


def _shows_conversation(notification: Notification) -> bool:
    return notification.type is NotificationType.CONVERSATION_CREATED


def _event(sequence: int, notification: Notification, objects: _Objects) -> Event | None:
    """Return the event of a notification, or None if its object does not exist."""
    kind = _KIND_OF[notification.type]
    data = _DATA_OF[kind](notification, objects)
    if data is None:
        return None
    return kind(
        id=notification.id,
        type=notification.type.value,
        timestamp=notification.occurred_at,
        sequence=sequence,
        data=data,
    )


def _show_message(notification: Notification, objects: _Objects) -> MessageResponse | None:
    row = objects.messages.get(notification.message_id) if notification.message_id else None
    if row is None:
        return None
    report = notification.report
    if report is None:
        return MessageResponse.model_validate({**row, "status": _first_status(row), "error": None})
    state = report.model_dump(include={"status", "provider", "provider_message_id", "error"})
    return MessageResponse.model_validate({**row, **state})


def _first_status(row: Fields) -> Status:
    """Return the status of a message when it was stored."""
    if row["direction"] == Direction.INBOUND:
        return Status.RECEIVED
    return Status.SCHEDULED if row["send_at"] and row["send_at"] > row["created_at"] else Status.ACCEPTED


def _show_conversation(notification: Notification, objects: _Objects) -> ConversationResponse | None:
    key, first = notification.conversation_key, _show_message(notification, objects)
    row = objects.conversations.get(key) if key else None
    if row is None or first is None:
        return None
    placed_at = objects.messages[first.id]["placed_at"]
    then = {"message_count": 1, "last_message_at": placed_at, "last_message": first}
    return ConversationResponse.model_validate({**row, **then})


def _show_suppression(notification: Notification, _: _Objects) -> SuppressionResponse | None:
    change = notification.suppression
    return SuppressionResponse.of(change) if change else None


def _show_dead_letter(notification: Notification, objects: _Objects) -> DeadLetterResponse | None:
    id_, resolution = notification.dead_letter_id, notification.resolution
    row = objects.dead_letters.get(id_) if id_ else None
    if row is None or id_ is None:
        return None
    made = objects.resolutions.get((id_, resolution)) if resolution else None
    return DeadLetterResponse.model_validate(
        {
            **row["content"],
            "state": resolution.value if resolution else DeadLetterState.OPEN,
            "is_sent": notification.is_sent,
            "resolution": made
            and ResolutionResponse(by=made["resolved_by"], at=made["resolved_at"], reason=made["reason"]),
            "created_at": row["created_at"],
        }
    )


def _show_webhook_endpoint(notification: Notification, _: _Objects) -> dict[str, Any] | None:
    return notification.webhook_endpoint


_DATA_OF: Mapping[type[Event], Callable[[Notification, _Objects], Any]] = {
    MessageEvent: _show_message,
    ConversationEvent: _show_conversation,
    SuppressionEvent: _show_suppression,
    DeadLetterEvent: _show_dead_letter,
    WebhookEndpointEvent: _show_webhook_endpoint,
}
