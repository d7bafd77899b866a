"""The statements that the gateway reads PostgreSQL with. Their columns are named as the views' fields are."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    Text,
    and_,
    case,
    cast,
    exists,
    func,
    literal,
    or_,
    select,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.orm import aliased
from sqlalchemy.types import UserDefinedType

from services.gateway.http.pagination import (
    BulkCursor,
    ConversationCursor,
    DeadLetterCursor,
    MessageCursor,
    ScheduledCursor,
    SuppressionCursor,
)
from services.gateway.views import DeadLetterState
from shared.channels import Channel, Direction, MessageType
from shared.db.tables import (
    SuppressionChange,
    Conversation,
    ConversationParticipant,
    DeadLetter,
    DeadLetterResolution,
    Message,
    MessageEvent,
    Participant,
)
from shared.db.views import message_history
from shared.events import SuppressionState, Resolution
from shared.lifecycle import Status

Statement = Select[Any]


class _SnapshotType(UserDefinedType[str]):
    """PostgreSQL's `pg_snapshot`: which transactions a statement can see."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "pg_snapshot"


# --- Messages -----------------------------------------------------------------------------------------

_message = Message.__table__
_conversation = Conversation.__table__

_MESSAGE_WITH_CONVERSATION = _message.join(_conversation)

_DECIDING_FIRST = (
    message_history.c.generation.desc(),
    message_history.c.precedence.desc(),
    message_history.c.attempt.desc(),
    message_history.c.occurred_at,
    message_history.c.event_id,
)
"""The order in which the report that counts comes first."""


def message(id_: UUID) -> Statement:
    return _shown(_message, _MESSAGE_WITH_CONVERSATION).where(_message.c.id == id_)


def history(id_: UUID) -> Statement:
    """Select what happened to a message, in the order of its course: clocks of providers differ from ours."""
    entry = message_history.c
    return (
        select(message_history)
        .where(entry.message_id == id_)
        .order_by(entry.generation, entry.attempt, entry.precedence, entry.occurred_at, entry.event_id)
    )


def messages(conversation_id: int, cursor: MessageCursor | None, limit: int) -> Statement:
    """Select the messages of a conversation, oldest first."""
    place = (_message.c.timestamp, _message.c.created_at, _message.c.id)
    statement = _shown(_message, _MESSAGE_WITH_CONVERSATION)
    statement = statement.where(_message.c.conversation_id == conversation_id)
    if cursor is not None:
        statement = statement.where(
            tuple_(*place) > tuple_(literal(cursor.timestamp), literal(cursor.created_at), literal(cursor.id))
        )
    return statement.order_by(*place).limit(limit)


def scheduled_messages(
    channel: Channel | None, since: datetime, cursor: ScheduledCursor | None, limit: int
) -> Statement:
    """Select the messages that are due after `since` and wait for that, the next one first.

    Their state is the report `scheduled`, unless there is one that counts more; receipts need no look, since
    what they are about was `sent`. An index has these reports in the order in which they fall due.
    """
    report, other = aliased(MessageEvent), aliased(MessageEvent)
    counts_more = tuple_(other.generation, other.precedence, other.attempt) > tuple_(
        report.generation, report.precedence, report.attempt
    )
    waiting = (
        select(report.message_id, report.next_attempt_at.label("due"))
        .where(report.status == Status.SCHEDULED.value, report.next_attempt_at > since)
        .where(~exists().where(other.message_id == report.message_id, counts_more))
        .order_by(report.next_attempt_at, report.message_id)
        .limit(limit)
    )
    types = [type_.value for type_ in MessageType if channel is None or type_.channel is channel]
    waiting = waiting.join(Message, Message.id == report.message_id).where(Message.type.in_(types))
    if cursor is not None:
        place = tuple_(report.next_attempt_at, report.message_id)
        waiting = waiting.where(place > tuple_(literal(cursor.due), literal(cursor.id)))
    page = waiting.subquery("waiting")
    source = _MESSAGE_WITH_CONVERSATION.join(page, page.c.message_id == _message.c.id)
    return _shown(_message, source).add_columns(page.c.due).order_by(page.c.due, page.c.message_id)


def last_messages(conversation_ids: list[int]) -> Statement:
    """Select the newest message of each conversation."""
    newest = (
        select(_message)
        .where(_message.c.conversation_id == _conversation.c.id)
        .order_by(_message.c.timestamp.desc(), _message.c.created_at.desc(), _message.c.id.desc())
        .limit(1)
        .lateral("newest")
    )
    source = _conversation.join(newest, true())
    return _shown(newest, source).where(_conversation.c.id.in_(conversation_ids))


def _shown(message: FromClause, source: FromClause) -> Statement:
    """Select what is shown of a message.

    Args:
        message: whose columns they are.
        source: where `message` and its conversation are joined.
    """
    state = _deciding_report(message, "state")
    sent = _deciding_report(message, "sent", message_history.c.status == Status.SENT.value)
    at_first = case(
        (message.c.direction == Direction.INBOUND.value, Status.RECEIVED.value), else_=Status.ACCEPTED.value
    )
    return select(
        message.c.id,
        message.c.conversation_id,
        _conversation.c.key.label("conversation_key"),
        message.c.direction,
        message.c.type,
        message.c.from_address.label("from_"),
        message.c.to_address.label("to"),
        message.c.subject,
        message.c.body,
        message.c.attachments,
        message.c.timestamp,
        func.coalesce(state.c.status, at_first).label("status"),
        func.coalesce(message.c.provider, sent.c.provider).label("provider"),
        func.coalesce(message.c.provider_message_id, sent.c.provider_message_id).label("provider_message_id"),
        state.c.error,
        message.c.created_at,
        message.c.send_at,
    ).select_from(source.outerjoin(state, true()).outerjoin(sent, true()))


def _deciding_report(message: FromClause, name: str, *conditions: ColumnElement[bool]) -> FromClause:
    return (
        select(message_history)
        .where(message_history.c.message_id == message.c.id, *conditions)
        .order_by(*_DECIDING_FIRST)
        .limit(1)
        .lateral(name)
    )


# --- Conversations ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConversationFilter:
    """Which conversations: those of a channel, those that an address (its key) takes part in."""

    channel: Channel | None = None
    participant: str | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        conditions = []
        if self.channel is not None:
            conditions.append(_conversation.c.channel == self.channel.value)
        if self.participant is not None:
            joined = (
                select(ConversationParticipant.conversation_id)
                .join(Participant)
                .where(Participant.address == self.participant)
            )
            conditions.append(_conversation.c.id.in_(joined))
        return conditions


def conversation_id(reference: int | UUID) -> Statement:
    named = _conversation.c.key if isinstance(reference, UUID) else _conversation.c.id
    return select(_conversation.c.id).where(named == reference)


def conversations(ids: list[int]) -> Statement:
    addresses = (
        select(Participant.address)
        .join(ConversationParticipant)
        .where(ConversationParticipant.conversation_id == _conversation.c.id)
        .order_by(Participant.address)
    )
    return select(
        _conversation.c.id,
        _conversation.c.key,
        _conversation.c.channel,
        func.array(addresses.scalar_subquery()).label("participants"),
        _conversation.c.message_count,
        _conversation.c.last_message_at,
    ).where(_conversation.c.id.in_(ids))


def first_conversations(wanted: ConversationFilter, limit: int) -> Statement:
    """Select the conversations of the newest messages, with the snapshot that saw them."""
    return (
        _places(_conversation.c.last_message_at)
        .add_columns(cast(func.pg_current_snapshot(), Text).label("snapshot"))
        .where(_conversation.c.last_message_at.is_not(None), *wanted.conditions())
        .order_by(_conversation.c.last_message_at.desc(), _conversation.c.id.desc())
        .limit(limit)
    )


def further_conversations(wanted: ConversationFilter, cursor: ConversationCursor, limit: int) -> Statement:
    """Go on where the page before ended, in the order that the snapshot of the first page saw.

    A conversation that was written since has the place that its messages of that time give it, and none if
    it had no message yet. Those that were not written come out of an index in the right order; of the others
    there are no more than were written while somebody was turning pages.
    """
    snapshot = cast(literal(cursor.snapshot), _SnapshotType)
    end = tuple_(literal(cursor.position), literal(cursor.id))
    seen = func.pg_visible_in_snapshot(_conversation.c.written_by, snapshot)
    stayed = (
        _places(_conversation.c.last_message_at)
        .where(seen, tuple_(_conversation.c.last_message_at, _conversation.c.id) < end)
        .where(*wanted.conditions())
        .order_by(_conversation.c.last_message_at.desc(), _conversation.c.id.desc())
        .limit(limit)
        .subquery()
    )
    then = (
        select(_message.c.timestamp)
        .where(_message.c.conversation_id == _conversation.c.id)
        .where(func.pg_visible_in_snapshot(_message.c.written_by, snapshot))
        .order_by(_message.c.timestamp.desc())
        .limit(1)
        .lateral("then")
    )
    moved = (
        _places(then.c.timestamp)
        .select_from(_conversation.join(then, true()))
        .where(_conversation.c.written_by >= func.pg_snapshot_xmin(snapshot), ~seen)
        .where(tuple_(then.c.timestamp, _conversation.c.id) < end)
        .where(*wanted.conditions())
    )
    both = union_all(select(stayed), moved).subquery("both")
    return select(both).order_by(both.c.position.desc(), both.c.id.desc()).limit(limit)


def _places(position: ColumnElement[Any]) -> Statement:
    """Select conversations with what they are ordered by; equal positions are told apart by the ids."""
    return select(_conversation.c.id, position.label("position"))


# --- Dead letters -------------------------------------------------------------------------------------

_dead_letter = DeadLetter.__table__

_resolution = DeadLetterResolution.__table__.alias("resolution")


def _was(resolution: Resolution) -> ColumnElement[bool]:
    return exists().where(
        DeadLetterResolution.dead_letter_id == _dead_letter.c.id,
        DeadLetterResolution.resolution == resolution.value,
    )


_HAS_LATER_GENERATION = exists().where(
    MessageEvent.message_id == _dead_letter.c.message_id, MessageEvent.generation > _dead_letter.c.generation
)
# If it was both, at the same moment or with the NATS CLI, then it is on its way, whatever else was meant.
_STATE = case(
    (or_(_was(Resolution.REPLAYED), _HAS_LATER_GENERATION), DeadLetterState.REPLAYED.value),
    (_was(Resolution.DISCARDED), DeadLetterState.DISCARDED.value),
    else_=DeadLetterState.OPEN.value,
)


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    direction: Direction | None = None
    channel: Channel | None = None
    reason: str | None = None
    message_id: UUID | None = None
    state: DeadLetterState | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        columns: list[tuple[ColumnElement[Any], object]] = [
            (_dead_letter.c.direction, self.direction and self.direction.value),
            (_dead_letter.c.channel, self.channel and self.channel.value),
            (_dead_letter.c.reason, self.reason),
            (_dead_letter.c.message_id, self.message_id),
            (_STATE, self.state and self.state.value),
        ]
        return [column == value for column, value in columns if value is not None]


def dead_letters(wanted: DeadLetterFilter, cursor: DeadLetterCursor | None, limit: int) -> Statement:
    """Select dead letters, newest first."""
    place = (_dead_letter.c.created_at, _dead_letter.c.id)
    statement = _shown_dead_letters().where(*wanted.conditions())
    if cursor is not None:
        statement = statement.where(tuple_(*place) < tuple_(literal(cursor.created_at), literal(cursor.id)))
    return statement.order_by(*(column.desc() for column in place)).limit(limit)


def open_dead_letters(wanted: DeadLetterFilter, cursor: BulkCursor, limit: int) -> Statement:
    """Select dead letters that are open, oldest first."""
    place = (_dead_letter.c.created_at, _dead_letter.c.id)
    conditions = replace(wanted, state=DeadLetterState.OPEN).conditions()
    statement = _shown_dead_letters().where(*conditions, _dead_letter.c.created_at <= cursor.until)
    if (after := cursor.after) is not None:
        statement = statement.where(tuple_(*place) > tuple_(literal(after.created_at), literal(after.id)))
    return statement.order_by(*place).limit(limit)


def dead_letter(id_: UUID) -> Statement:
    return _shown_dead_letters().where(_dead_letter.c.id == id_)


def _shown_dead_letters() -> Statement:
    deciding = and_(_resolution.c.dead_letter_id == _dead_letter.c.id, _resolution.c.resolution == _STATE)
    return select(
        _dead_letter.c.content,
        _dead_letter.c.message_id,
        _dead_letter.c.created_at,
        _STATE.label("state"),
        _resolution.c.resolved_by,
        _resolution.c.resolved_at,
        _resolution.c.reason,
    ).select_from(_dead_letter.outerjoin(_resolution, deciding))


# --- Suppressions -------------------------------------------------------------------------------------

_change = SuppressionChange.__table__


@dataclass(frozen=True, slots=True)
class SuppressionFilter:
    """Which suppressions: those of a channel, those of an address (its key)."""

    channel: Channel | None = None
    address: str | None = None


def suppressions(wanted: SuppressionFilter, cursor: SuppressionCursor | None, limit: int) -> Statement:
    """Select the opt-outs that no later change of the same pair has taken back, the latest first.

    Changes of a pair come one after another, the opt-out later of two at one moment.
    """
    change, later = _change.c, _change.alias("later").c
    statement = select(
        change.id,
        change.channel,
        change.theirs.label("address"),
        change.ours.label("sender"),
        change.source,
        change.detail,
        change.changed_by.label("by"),
        change.occurred_at.label("since"),
    ).where(
        change.state == SuppressionState.OPTED_OUT.value,
        ~exists().where(later.key == change.key, later.occurred_at > change.occurred_at),
    )
    if wanted.channel is not None:
        statement = statement.where(change.channel == wanted.channel.value)
    if wanted.address is not None:
        statement = statement.where(change.theirs == wanted.address)
    if cursor is not None:
        place = tuple_(change.occurred_at, change.id)
        statement = statement.where(place < tuple_(literal(cursor.occurred_at), literal(cursor.id)))
    return statement.order_by(change.occurred_at.desc(), change.id.desc()).limit(limit)
