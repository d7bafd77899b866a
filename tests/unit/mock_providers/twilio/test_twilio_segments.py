"""Segments of texts in GSM 03.38, and in UTF-16."""

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
        # Characters with an escape count as two, and are never split.
        ("€" * 80, 1),
        ("€" * 81, 2),
        ("€" * 152, 2),
        ("€" * 153, 3),
        ("a" * 152 + "€" + "a" * 7, 2),
        ("a" * 152 + "€" + "a" * 151, 2),
        ("a" * 152 + "€" + "a" * 152, 3),
        # A single character that GSM 03.38 lacks makes the whole text UTF-16.
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
def test_segment_counts(text: str, segments: int) -> None:
    assert segment_count(text) == segments


@given(st.text(st.sampled_from("a€ç😀"), max_size=700), st.sampled_from("a€ç😀"))
def test_a_longer_text_never_has_fewer_segments(text: str, more: str) -> None:
    assert segment_count(text) <= segment_count(text + more)
