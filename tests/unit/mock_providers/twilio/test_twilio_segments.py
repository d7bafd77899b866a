"""Segments, as GSM 03.38 and its UCS-2 fallback divide texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mock_providers.twilio.segments import segment_count


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("", 1),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 306, 2),
        ("a" * 307, 3),
        # Characters behind an escape count two, and are never torn apart.
        ("€" * 80, 1),
        ("€" * 81, 2),
        ("€" * 152, 2),
        ("€" * 153, 3),
        ("a" * 152 + "€" + "a" * 7, 2),
        ("a" * 152 + "€" + "a" * 151, 2),
        ("a" * 152 + "€" + "a" * 152, 3),
        # One character that GSM doesn't know makes everything UTF-16.
        ("ç" * 70, 1),
        ("ç" * 71, 2),
        ("ç" * 134, 2),
        ("ç" * 135, 3),
        ("a" * 69 + "ç", 1),
        ("a" * 70 + "ç", 2),
        ("Ç" * 160, 1),
        ("😀" * 35, 1),
        ("😀" * 36, 2),
        ("😀" * 66, 2),
        ("😀" * 67, 3),
    ],
)
def test_segments(text: str, segments: int) -> None:
    assert segment_count(text) == segments


@given(st.text(st.sampled_from("a€ç😀"), max_size=700), st.sampled_from("a€ç😀"))
def test_a_longer_text_never_takes_fewer(text: str, more: str) -> None:
    assert segment_count(text) <= segment_count(text + more)
