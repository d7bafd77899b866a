"""Pages of lists, by keyset: an opaque cursor names the last item of a page, and belongs to one list."""

import base64
import hmac
from collections.abc import Callable, Sequence
from hashlib import blake2b
from secrets import token_bytes
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.gateway.http.errors import InvalidRequestError
from shared.validation import Fault

MAX_CURSOR = 4_096
"""Characters."""

_DEFAULT_LIMIT = 50
_MAX_LIMIT = 200
_DIGEST_SIZE = 16

_key = token_bytes(32)


def sign_cursors_with(secret: str) -> None:
    """Sign cursors with a secret that all gateways have, so that each accepts those of the others.

    Otherwise, cursors are valid only in the process that has created them.
    """
    global _key  # noqa: PLW0603 - a process has one gateway, and cursors are created and read in many places
    _key = blake2b(secret.encode(), person=b"cursors").digest()


class Cursor(BaseModel):
    """The position of an item in a list: the values that the list is ordered by."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Item = TypeVar("Item", bound=BaseModel)
Row = TypeVar("Row")
C = TypeVar("C", bound=Cursor)


class PageParameters(BaseModel):
    """The query parameters of every list; the filters of a list are the fields that a subclass adds."""

    limit: int = Field(
        default=_DEFAULT_LIMIT, ge=1, le=_MAX_LIMIT, description="Maximum number of items on the page"
    )
    cursor: str | None = Field(
        default=None,
        max_length=MAX_CURSOR,
        description="`next_cursor` of the previous page",
        json_schema_extra={"format": "cursor"},
    )


class Page(BaseModel, Generic[Item]):
    @classmethod
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        """Return the name of the schema of a page, such as `MessagePage`."""
        return getattr(params[0], "__name__", "").removesuffix("Response") + cls.__name__

    items: list[Item]
    next_cursor: str | None = Field(description="Cursor of the next page; null on the last one")


def page_of(
    rows: Sequence[Row],
    page: PageParameters,
    show: Callable[[Row], Item],
    cursor_of: Callable[[Row], Cursor],
    *listing: object,
    end: Row | None = None,
) -> Page[Item]:
    """Return a page.

    Args:
        rows: the rows from the cursor on, one more than the page shows if there are more.
        page: the parameters of the request.
        show: turns a row into an item.
        cursor_of: returns the position of a row.
        listing: the name of the list, and the filters that were requested.
        end: the position at which the list continues if there are no more rows, but it may have more.
    """
    shown = rows[: page.limit]
    last = shown[-1] if len(rows) > page.limit else end
    next_cursor = encode_cursor(cursor_of(last), *listing) if last is not None else None
    return Page[Any](items=[show(row) for row in shown], next_cursor=next_cursor)


def encode_cursor(cursor: Cursor, *listing: object) -> str:
    """Encode a cursor for `listing`: the name of a list, and the filters that were requested."""
    payload = cursor.model_dump_json().encode()
    return base64.urlsafe_b64encode(_digest(payload, listing) + payload).rstrip(b"=").decode()


def decode_cursor(text: str | None, kind: type[C], *listing: object) -> C | None:
    """Decode a cursor.

    Raises:
        InvalidRequestError: the text is not a cursor, or belongs to another list.
    """
    if text is None:
        return None
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        digest, payload = raw[:_DIGEST_SIZE], raw[_DIGEST_SIZE:]
        if hmac.compare_digest(digest, _digest(payload, listing)):
            return kind.model_validate_json(payload)
    except (ValueError, ValidationError):
        pass
    raise InvalidRequestError(Fault("cursor", "is not a valid cursor for this list and these filters"))


def _digest(payload: bytes, listing: Sequence[object]) -> bytes:
    """Return the signature of a cursor, which belongs to one list."""
    return blake2b(repr(listing).encode() + payload, key=_key, digest_size=_DIGEST_SIZE).digest()
