import base64
import json
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.http.errors import InvalidRequestError
from services.gateway.http.pagination import ConversationCursor, Cursor, MessageCursor, decode, encode

MOMENT = datetime(2024, 11, 1, 14, 0, 0, 123_456, tzinfo=UTC)
CURSOR = ConversationCursor(snapshot="10:20:12,15", position=MOMENT, id=7)


def test_a_cursor_comes_back() -> None:
    assert (
        decode(encode(CURSOR, "conversations", "sms"), ConversationCursor, "conversations", "sms") == CURSOR
    )


def test_no_cursor_is_the_beginning() -> None:
    assert decode(None, ConversationCursor, "conversations") is None


@pytest.mark.parametrize("listing", [("messages", "sms"), ("conversations", "email"), ("conversations",)])
def test_a_cursor_is_good_for_its_own_list_only(listing: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequestError):
        decode(encode(CURSOR, "conversations", "sms"), ConversationCursor, *listing)


@given(st.data())
def test_a_cursor_that_was_changed_is_refused(data: st.DataObject) -> None:
    text = encode(CURSOR, "conversations")
    place = data.draw(st.integers(0, len(text) - 2))  # the last character has bits that do not count
    other = data.draw(st.characters(codec="ascii").filter(lambda character: character != text[place]))
    with pytest.raises(InvalidRequestError):
        decode(text[:place] + other + text[place + 1 :], ConversationCursor, "conversations")


@given(st.text())
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        decode(text, MessageCursor, "messages")


class Forged(Cursor):
    snapshot: str = "10:20:"
    position: str = MOMENT.isoformat()
    id: int = 1


@pytest.mark.parametrize(
    "forged",
    [
        Forged(snapshot="20:10:"),
        Forged(snapshot="10:20:15,12"),
        Forged(snapshot="10:20:12,12"),
        Forged(snapshot="10:20:5"),
        Forged(snapshot="10:20:20"),
        Forged(snapshot="0:20:"),
        Forged(snapshot="10:9999999999999999999:"),
        Forged(snapshot="10:20"),
        Forged(snapshot="; DROP TABLE messages"),
        Forged(position="2024-11-01T14:00:00"),
        Forged(position="12024-11-01T14:00:00Z"),
        Forged(id=0),
        Forged(id=2**63),
    ],
)
def test_even_a_forged_cursor_is_one_that_postgresql_understands(forged: Forged) -> None:
    with pytest.raises(InvalidRequestError):
        decode(encode(forged, "conversations"), ConversationCursor, "conversations")


def test_a_cursor_is_safe_in_an_url_and_not_too_long() -> None:
    cursor = MessageCursor(timestamp=MOMENT, created_at=MOMENT, id=uuid4())
    text = encode(cursor, "messages")
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

    assert text.replace("-", "").replace("_", "").isalnum()
    assert json.loads(raw[8:])["id"] == str(cursor.id)
    assert len(text) < 200
