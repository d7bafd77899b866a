import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.keywords import Keyword, keyword_of


@pytest.mark.parametrize(
    ("text", "keyword"),
    [
        *((word, Keyword.STOP) for word in ("STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT")),
        ("REVOKE", Keyword.STOP),
        ("OPTOUT", Keyword.STOP),
        ("START", Keyword.START),
        ("UNSTOP", Keyword.START),
        ("YES", Keyword.YES),
        ("HELP", Keyword.HELP),
        ("INFO", Keyword.HELP),
        (" stop.\n", Keyword.STOP),
        ("“Stop!”", Keyword.STOP),
        ("sToP", Keyword.STOP),
        ("¡START!", Keyword.START),
        ("", None),
        ("!?", None),
        ("stop it", None),
        ("please stop", None),
        ("non-stop", None),
        ("STOP STOP", None),
        ("opt out", None),
        ("stopp", None),
        ("👍", None),
    ],
)
def test_a_text_is_a_keyword_or_not(text: str, keyword: Keyword | None) -> None:
    assert keyword_of(text) is keyword


@given(st.text(max_size=20))
def test_spaces_around_a_text_do_not_matter(text: str) -> None:
    assert keyword_of(f" \n{text}\t ") is keyword_of(text)
