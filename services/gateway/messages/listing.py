"""The lists of messages, with any combination of filters.

One of the filters selects ranges of an index, and the others are applied to their rows.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, FromClause, Select, exists, func, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.messages.schemas import MessageFilter, NewestCursor, ScheduledCursor
from shared.channels import Channel, Direction
from shared.db.keyset import Filter, Keyset, Rows, read_page
from shared.db.tables import (
    Conversation,
    ConversationParticipant,
    Message,
    MessageMetadata,
    MessageState,
    Participant,
    ParticipantMessage,
)
from shared.resources.messages import initial_status, select_messages
from shared.status import Status

_message = Message.__table__
_entry = ParticipantMessage.__table__
_pair = MessageMetadata.__table__
_state = MessageState.__table__

_MESSAGE_WITH_STATE = _message.outerjoin(_state, _state.c.message_id == _message.c.id)
_STATUS = func.coalesce(_state.c.status, initial_status(_message))
_PROVIDER = func.coalesce(_message.c.provider, _state.c.provider)
_ERROR_CODE = _state.c.error["code"].astext

# As a literal, since the index contains only these rows.
_SCHEDULED = literal(Status.SCHEDULED.value, literal_execute=True)


@dataclass(frozen=True, slots=True)
class _Scan:
    """The ranges of indexes to read.

    Attributes:
        covered: the names of the filters that need not be applied to the rows.
    """

    ranges: Sequence[Select[Any]]
    covered: Collection[str]


async def list_newest(
    connection: AsyncConnection, selected: MessageFilter, cursor: NewestCursor | None, limit: int
) -> Rows:
    """Return messages, newest first."""
    if _is_impossible(selected):
        return Rows([])
    scan = _scan(selected)
    ranges = [rows.where(*_times(selected, rows.selected_columns.created_at)) for rows in scan.ranges]
    after = (cursor.created_at, cursor.id) if cursor else None
    keyset = Keyset(ranges, ("created_at", "id"), after)
    others = Filter(_MESSAGE_WITH_STATE, _message.c.id, _conditions(selected, scan.covered))
    return await read_page(connection, keyset, select_messages(), _message.c.id, limit, others)


async def list_scheduled(
    connection: AsyncConnection,
    selected: MessageFilter,
    since: datetime,
    cursor: ScheduledCursor | None,
    limit: int,
) -> Rows:
    """Return scheduled messages that are due after `since`, soonest first."""
    if _is_impossible(selected):
        return Rows([])
    rows = select(_state.c.next_attempt_at.label("due"), _state.c.message_id.label("id")).where(
        _state.c.status == _SCHEDULED, _state.c.next_attempt_at > since
    )
    after = (cursor.due, cursor.id) if cursor else None
    keyset = Keyset([rows], ("due", "id"), after, is_ascending=True)
    conditions = [*_conditions(selected, {"status"}), *_times(selected, _message.c.created_at)]
    others = Filter(_MESSAGE_WITH_STATE, _message.c.id, conditions)
    return await read_page(connection, keyset, select_messages(), _message.c.id, limit, others)


def _is_impossible(selected: MessageFilter) -> bool:
    if selected.status is None or selected.direction is None:
        return False
    return (selected.status is Status.RECEIVED) is not (selected.direction is Direction.INBOUND)


def _scan(selected: MessageFilter) -> _Scan:
    return _selective_scan(selected) or _broad_scan(selected)


def _selective_scan(selected: MessageFilter) -> _Scan | None:
    """Return the range of a filter that is likely to select few messages, if there is one."""
    if selected.reference is not None:
        return _Scan([_rows_of(_message).where(_message.c.reference == selected.reference)], {"reference"})
    if selected.conversation is not None:
        id_ = _id_of(selected.conversation)
        return _Scan([_rows_of(_message).where(_message.c.conversation_id == id_)], {"conversation"})
    if selected.metadata:
        (key, value), *others = selected.metadata
        rows = _rows_of(_pair).where(_pair.c.key == key, _pair.c.value == value)
        return _Scan([rows], set() if others else {"metadata"})
    if selected.error_code is not None:
        return _Scan([_rows_of(_state).where(selected.error_code == _ERROR_CODE)], {"error_code"})
    return None


def _broad_scan(selected: MessageFilter) -> _Scan:
    """Return the ranges of a filter that may select many messages, or those of all messages."""
    channels = [each for each in Channel if selected.channel in (None, each)]
    if selected.address is not None:
        participants = (_participant(selected.address, channel) for channel in channels)
        ranges = [_rows_of(_entry).where(_entry.c.participant_id == each) for each in participants]
        return _Scan(ranges, {"address", "channel"})
    if selected.status not in (None, Status.RECEIVED):
        rows = _rows_of(_state).where(_state.c.status == selected.status.value)
        return _Scan([rows], {"status", "direction"})
    direction = Direction.INBOUND if selected.status is Status.RECEIVED else selected.direction
    directions = [each for each in Direction if direction in (None, each)]
    if selected.provider is not None:
        tables = {Direction.INBOUND: _message, Direction.OUTBOUND: _state}
        ranges = [
            _rows_of(tables[each]).where(tables[each].c.provider == selected.provider) for each in directions
        ]
        return _Scan(ranges, {"provider", "direction"})
    ranges = [
        _rows_of(_message).where(_message.c.channel == channel.value, _message.c.direction == each.value)
        for channel in channels
        for each in directions
    ]
    return _Scan(ranges, {"channel", "direction", *({"status"} if selected.status else ())})


def _rows_of(table: FromClause) -> Select[Any]:
    id_ = table.c.id if table is _message else table.c.message_id
    return select(table.c.created_at, id_.label("id"))


def _times(selected: MessageFilter, created_at: ColumnElement[Any]) -> Sequence[ColumnElement[bool]]:
    since, before = selected.created_since, selected.created_before
    return [
        *([created_at >= since] if since is not None else ()),
        *([created_at < before] if before is not None else ()),
    ]


def _conditions(selected: MessageFilter, covered: Collection[str]) -> Sequence[ColumnElement[bool]]:
    """Return the filters that the ranges do not cover."""
    values: dict[str, tuple[ColumnElement[Any], Any]] = {
        "status": (_STATUS, selected.status and selected.status.value),
        "direction": (_message.c.direction, selected.direction and selected.direction.value),
        "channel": (_message.c.channel, selected.channel and selected.channel.value),
        "provider": (_PROVIDER, selected.provider),
        "error_code": (_ERROR_CODE, selected.error_code),
        "reference": (_message.c.reference, selected.reference),
    }
    conditions = {name: column == value for name, (column, value) in values.items() if value is not None}
    if selected.metadata:
        conditions["metadata"] = _message.c.metadata.contains(dict(selected.metadata))
    if selected.conversation is not None:
        conditions["conversation"] = _message.c.conversation_id == _id_of(selected.conversation)
    if selected.address is not None:
        conditions["address"] = _has_participant(selected.address)
    return [condition for name, condition in conditions.items() if name not in covered]


def _id_of(reference: int | UUID) -> Any:  # noqa: ANN401 - a number or a subquery
    if isinstance(reference, int):
        return reference
    return select(Conversation.id).where(Conversation.key == reference).scalar_subquery()


def _participant(address: str, channel: Channel) -> Any:  # noqa: ANN401 - a subquery
    return (
        select(Participant.id)
        .where(Participant.address == address, Participant.channel == channel.value)
        .scalar_subquery()
    )


def _has_participant(address: str) -> ColumnElement[bool]:
    return exists().where(
        ConversationParticipant.conversation_id == _message.c.conversation_id,
        ConversationParticipant.participant_id == Participant.id,
        Participant.address == address,
    )
