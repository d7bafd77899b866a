import base64
import json
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from services.gateway.conversations.schemas import ConversationCursor
from services.gateway.http.errors import InvalidRequestError
from services.gateway.http.pagination import (
    Cursor,
    PageParameters,
    decode_cursor,
    encode_cursor,
    page_of,
    sign_cursors_with,
)
from services.gateway.messages.schemas import MessageCursor

MOMENT = datetime(2024, 11, 1, 14, 0, 0, 123_456, tzinfo=UTC)
CURSOR = ConversationCursor(last_message_at=MOMENT, id=7)
MESSAGE_CURSOR = MessageCursor(placed_at=MOMENT, created_at=MOMENT, id=UUID(int=1))


@pytest.mark.parametrize("cursor", [CURSOR, MESSAGE_CURSOR])
def test_an_encoded_cursor_can_be_decoded(cursor: Cursor) -> None:
    text = encode_cursor(cursor, "conversations", "sms")

    assert decode_cursor(text, type(cursor), "conversations", "sms") == cursor


def test_the_first_page_has_no_cursor() -> None:
    assert decode_cursor(None, ConversationCursor, "conversations") is None


@pytest.mark.parametrize("listing", [("messages", "sms"), ("conversations", "email"), ("conversations",)])
def test_a_cursor_is_valid_for_its_own_list_only(listing: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequestError) as error:
        decode_cursor(encode_cursor(CURSOR, "conversations", "sms"), ConversationCursor, *listing)

    assert [fault.field for fault in error.value.faults] == ["cursor"]


@given(st.data())
def test_an_altered_cursor_is_refused(data: st.DataObject) -> None:
    text = encode_cursor(CURSOR, "conversations")
    place = data.draw(st.integers(0, len(text) - 2))  # the last character has insignificant bits
    other = data.draw(st.characters(codec="ascii").filter(lambda character: character != text[place]))
    with pytest.raises(InvalidRequestError):
        decode_cursor(text[:place] + other + text[place + 1 :], ConversationCursor, "conversations")


@given(st.text())
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        decode_cursor(text, MessageCursor, "messages")


class Forged(Cursor):
    last_message_at: str = MOMENT.isoformat()
    id: int | str = 1


@pytest.mark.parametrize(
    "forged",
    [
        Forged(last_message_at="2024-11-01T14:00:00"),
        Forged(last_message_at="12024-11-01T14:00:00Z"),
        Forged(last_message_at="'; DROP TABLE messages"),
        Forged(id=0),
        Forged(id=2**63),
        Forged(id="1; DROP TABLE messages"),
        MESSAGE_CURSOR,
    ],
)
def test_a_forged_cursor_never_reaches_postgresql(forged: Cursor) -> None:
    with pytest.raises(InvalidRequestError):
        decode_cursor(encode_cursor(forged, "conversations"), ConversationCursor, "conversations")


def test_a_cursor_that_was_signed_with_another_secret_is_refused() -> None:
    sign_cursors_with("another secret")
    text = encode_cursor(CURSOR, "conversations")
    sign_cursors_with("the secret of the gateways")
    with pytest.raises(InvalidRequestError):
        decode_cursor(text, ConversationCursor, "conversations")

    valid = encode_cursor(CURSOR, "conversations")
    sign_cursors_with("the secret of the gateways")
    assert decode_cursor(valid, ConversationCursor, "conversations") == CURSOR


def test_a_cursor_is_safe_in_a_url_and_not_too_long() -> None:
    cursor = MessageCursor(placed_at=MOMENT, created_at=MOMENT, id=uuid4())
    text = encode_cursor(cursor, "messages")
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

    assert text.replace("-", "").replace("_", "").isalnum()
    assert json.loads(raw[16:])["id"] == str(cursor.id)
    assert len(text) < 200


class Item(BaseModel):
    number: int


class ItemCursor(Cursor):
    number: int


@pytest.mark.parametrize(
    ("rows", "shown", "last"), [([], [], None), ([1, 2], [1, 2], None), ([1, 2, 3], [1, 2], 2)]
)
def test_a_page_has_a_cursor_if_there_are_more_items(
    rows: list[int], shown: list[int], last: int | None
) -> None:
    page = page_of(
        rows,
        PageParameters(limit=2),
        lambda row: Item(number=row),
        lambda row: ItemCursor(number=row),
        "items",
    )

    assert [item.number for item in page.items] == shown
    cursor = decode_cursor(page.next_cursor, ItemCursor, "items")
    assert (cursor and cursor.number) == last
