import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.segments import Encoding, Segments, segments_of

GSM_7, UCS_2 = Encoding.GSM_7, Encoding.UCS_2
# The alphabet in the order of its codes, 16 per line; code 0x1B, the escape, is not a character.
BASIC = (
    "@£$¥èéùìòÇ\nØø\rÅå"
    "Δ_ΦΓΛΩΠΨΣΘΞÆæßÉ"
    " !\"#¤%&'()*+,-./"
    "0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNO"
    "PQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmno"
    "pqrstuvwxyzäöñüà"
)
EXTENSION = "\f^{}\\[~]|€"


@pytest.mark.parametrize(
    ("text", "encoding", "count"),
    [
        ("", GSM_7, 1),
        ("Hello!", GSM_7, 1),
        (BASIC, GSM_7, 1),
        (EXTENSION, GSM_7, 1),
        ("x" * 160, GSM_7, 1),
        ("x" * 161, GSM_7, 2),
        ("x" * 306, GSM_7, 2),
        ("x" * 307, GSM_7, 3),
        ("x" * 1_600, GSM_7, 11),
        ("€" * 80, GSM_7, 1),
        ("€" * 81, GSM_7, 2),
        # 76 pairs fill 152 of 153 units, and the next one does not fit.
        ("€" * 152, GSM_7, 2),
        ("€" * 153, GSM_7, 3),
        ("x" + "€" * 152, GSM_7, 2),
        ("ç", UCS_2, 1),
        ("`", UCS_2, 1),
        ("\t", UCS_2, 1),
        ("“", UCS_2, 1),
        ("ж" * 70, UCS_2, 1),
        ("ж" * 71, UCS_2, 2),
        ("ж" * 134, UCS_2, 2),
        ("ж" * 135, UCS_2, 3),
        ("😀" * 35, UCS_2, 1),
        ("😀" * 36, UCS_2, 2),
        # 33 pairs fill 66 of 67 units.
        ("😀" * 66, UCS_2, 2),
        ("😀" * 67, UCS_2, 3),
        ("ж" + "😀" * 66, UCS_2, 2),
        ("x" * 159 + "😀", UCS_2, 3),
    ],
)
def test_known_texts(text: str, encoding: Encoding, count: int) -> None:
    assert segments_of(text) == Segments(encoding, count)


def test_the_alphabet_is_complete() -> None:
    assert len(BASIC) == len(set(BASIC)) == 127


CHARACTERS = st.one_of(
    st.sampled_from(BASIC), st.sampled_from(EXTENSION), st.characters(exclude_categories=["Cs"])
)


@given(
    st.one_of(st.text(st.sampled_from(BASIC + EXTENSION), max_size=700), st.text(CHARACTERS, max_size=300))
)
@example("x" * 152 + "€" + "x" * 10)
@example("ж" * 66 + "😀" + "ж" * 10)
def test_the_count_is_that_of_the_parts_of_the_text(text: str) -> None:
    found = segments_of(text)
    assert found.count == len(split(text, found.encoding))
    assert (found.encoding is GSM_7) == all(character in BASIC + EXTENSION for character in text)


def split(text: str, encoding: Encoding) -> list[str]:
    """Split a text into the longest parts that fit."""
    alone, each = (160, 153) if encoding is GSM_7 else (70, 67)
    if units(text, encoding) <= alone:
        return [text]
    parts = []
    while text:
        length = max(n for n in range(1, len(text) + 1) if units(text[:n], encoding) <= each)
        parts.append(text[:length])
        text = text[length:]
    return parts


def units(text: str, encoding: Encoding) -> int:
    if encoding is GSM_7:
        return len(text) + sum(text.count(character) for character in EXTENSION)
    return len(text.encode("utf-16-be")) // 2
