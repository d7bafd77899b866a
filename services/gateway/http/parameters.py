"""Parameters of paths and queries."""

from typing import Annotated
from uuid import UUID

from fastapi import Query

from services.gateway.http.errors import Fault, InvalidRequestError
from shared.addresses import MAX_ADDRESS_LENGTH, InvalidAddressError, parse_address
from shared.channels import Channel

_MAX_BIGINT = 2**63 - 1
MAX_CURSOR = 4_096

DEFAULT_LIMIT = 50
_MAX_LIMIT = 200

Limit = Annotated[int, Query(ge=1, le=_MAX_LIMIT, description="Items on a page, at most")]
CursorText = Annotated[
    str | None,
    Query(
        max_length=MAX_CURSOR,
        description="`next_cursor` of the page before",
        json_schema_extra={"format": "cursor"},
    ),
]
ParticipantText = Annotated[
    str | None,
    Query(
        max_length=MAX_ADDRESS_LENGTH,
        description="A phone number or an e-mail address",
        json_schema_extra={"format": "participant"},
        examples=["+18045551234"],
    ),
]


def as_uuid(text: str) -> UUID | None:
    """Read an id out of a path, where whatever is none names nothing."""
    try:
        return UUID(text)
    except ValueError:
        return None


def as_conversation(text: str) -> int | UUID | None:
    """Read the small integer or the key of a conversation out of a path."""
    if text.isascii() and text.isdecimal():
        number = int(text) if len(text) <= len(str(_MAX_BIGINT)) else 0
        return number if 1 <= number <= _MAX_BIGINT else None
    return as_uuid(text)


def as_participant(text: str | None, *, default_region: str) -> str | None:
    """Normalise an address out of a query string, where an unescaped `+` arrives as a space.

    Raises:
        InvalidRequestError: it is no address.
    """
    return as_address(text, "participant", default_region=default_region)[1] if text is not None else None


def as_address(text: str, name: str, *, default_region: str) -> tuple[Channel, str]:
    """Normalise an address out of a URL, as `as_participant` does, to its channel and its key.

    Raises:
        InvalidRequestError: the parameter `name` is no address.
    """
    if "@" in text:
        channel, text = Channel.EMAIL, text.strip().replace(" ", "+")
    else:
        channel, text = Channel.SMS, f"+{text[1:]}" if text.startswith(" ") else text
    try:
        return channel, parse_address(text, channel, default_region=default_region).key
    except InvalidAddressError as exc:
        raise InvalidRequestError(Fault(name, str(exc))) from exc
