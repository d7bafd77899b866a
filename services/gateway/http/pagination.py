"""Cursors: where a page ended, in a form that is opaque to clients and good for the same listing only."""

import base64
import re
from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Self, TypeVar
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from services.gateway.http.errors import Fault, InvalidRequestError

_DIGEST_SIZE = 8
_MAX_BIGINT = 2**63 - 1
_SNAPSHOT = re.compile(r"(\d{1,19}):(\d{1,19}):((?:\d{1,19}(?:,\d{1,19})*)?)", flags=re.ASCII)


def _snapshot(value: str) -> str:
    """Check a `pg_snapshot`: xmin:xmax:those in between that were under way, in order."""
    match = _SNAPSHOT.fullmatch(value)
    if match is None:
        raise ValueError("is no snapshot")
    xmin, xmax = int(match[1]), int(match[2])
    running = [int(number) for number in match[3].split(",") if number]
    if not 1 <= xmin <= xmax <= _MAX_BIGINT or sorted(set(running)) != running:
        raise ValueError("is no snapshot")
    if running and not xmin <= running[0] <= running[-1] < xmax:
        raise ValueError("is no snapshot")
    return value


class Cursor(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ConversationCursor(Cursor):
    """The end of a page of conversations.

    Attributes:
        snapshot: which transactions the first page saw.
        position: time of the last conversation's newest message that the first page could have seen.
    """

    snapshot: Annotated[str, AfterValidator(_snapshot)]
    position: AwareDatetime
    id: int = Field(ge=1, le=_MAX_BIGINT)


class MessageCursor(Cursor):
    timestamp: AwareDatetime
    created_at: AwareDatetime
    id: UUID


class ScheduledCursor(Cursor):
    due: AwareDatetime
    id: UUID


class DeadLetterCursor(Cursor):
    created_at: AwareDatetime
    id: UUID


class SuppressionCursor(Cursor):
    occurred_at: AwareDatetime
    id: UUID


class BulkCursor(Cursor):
    """How far the dead letters of a filter were worked through, oldest first.

    Attributes:
        until: when the first call was made. What is given up later is left alone: a message that fails again
            at once would otherwise be replayed for ever.
        after: the last one that was dealt with.
    """

    until: AwareDatetime
    after: DeadLetterCursor | None = None

    def behind(self, created_at: datetime, id_: UUID) -> Self:
        """Go on behind this dead letter."""
        return self.model_copy(update={"after": DeadLetterCursor(created_at=created_at, id=id_)})


C = TypeVar("C", bound=Cursor)


def encode(cursor: Cursor, *listing: object) -> str:
    """Write a cursor down for `listing`: the name of a list, and the filters it was asked with."""
    payload = cursor.model_dump_json().encode()
    return base64.urlsafe_b64encode(_digest(payload, listing) + payload).rstrip(b"=").decode()


def decode(text: str | None, kind: type[C], *listing: object) -> C | None:
    """Read a cursor.

    Raises:
        InvalidRequestError: it is none, or that of another listing.
    """
    if text is None:
        return None
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        digest, payload = raw[:_DIGEST_SIZE], raw[_DIGEST_SIZE:]
        if digest == _digest(payload, listing):
            return kind.model_validate_json(payload)
    except (ValueError, ValidationError):
        pass
    raise InvalidRequestError(Fault("cursor", "is no cursor of this list with these filters"))


def _digest(payload: bytes, listing: Sequence[object]) -> bytes:
    """Tell a cursor that was changed or mixed up from a good one. It is a check, not a secret."""
    return blake2b(repr(listing).encode() + payload, digest_size=_DIGEST_SIZE).digest()
