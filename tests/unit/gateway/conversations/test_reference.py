from uuid import UUID

import pytest

from services.gateway.conversations.routes import parse_reference
from services.gateway.http.errors import NotFoundError

KEY = "13db6b6e-2dbd-5c1c-b749-f90205e39fde"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", 1), ("007", 7), (str(2**63 - 1), 2**63 - 1), (KEY, UUID(KEY)), (KEY.upper(), UUID(KEY))],
)
async def test_a_conversation_has_an_id_and_a_key(text: str, expected: int | UUID) -> None:
    assert await parse_reference(text) == expected


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1_0", "1.0", "²", "٣", str(2**63), "9" * 5_000, "garbage", KEY + "0"]
)
async def test_any_other_text_is_not_found(text: str) -> None:
    with pytest.raises(NotFoundError):
        await parse_reference(text)
