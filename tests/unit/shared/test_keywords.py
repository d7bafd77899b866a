import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.keywords import Keyword, keyword_of, words_for


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
        ("opt out", Keyword.STOP),
        ("Opt-Out!", Keyword.STOP),
        ("STOP ALL", Keyword.STOP),
        ("stop-all", Keyword.STOP),
        ("un\u00adsubscribe\u200b", Keyword.STOP),
        ("\ufeffSTOP \U0001f6d1\ufe0f", Keyword.STOP),
        ("STOP\u3164", Keyword.STOP),
        ("\uff33\uff34\uff2f\uff30", Keyword.STOP),
        ("un stop", Keyword.START),
        ("stopped", None),
        ("don't stop", None),
        ("stopp", None),
        ("👍", None),
    ],
)
def test_a_text_is_a_keyword_or_not(text: str, keyword: Keyword | None) -> None:
    assert keyword_of(text) is keyword


@given(st.text(max_size=20))
def test_spaces_around_a_text_do_not_matter(text: str) -> None:
    assert keyword_of(f" \n{text}\t ") is keyword_of(text)


@pytest.mark.parametrize("text", ["arr\u00eat", "ARRE\u0302T.", " Arr\u00eat !"])
def test_own_words_are_keywords_in_any_spelling(text: str) -> None:
    own = words_for(["Arr\u00eat"], Keyword.STOP)

    assert keyword_of(text) is None
    assert keyword_of(text, own) is Keyword.STOP
    assert keyword_of("stop", own) is Keyword.STOP


def test_words_that_differ_in_a_vowel_sign_are_different() -> None:
    own = words_for(["\u0930\u094b\u0915\u094b"], Keyword.STOP)

    assert keyword_of("\u0930\u0941\u0915\u094b", own) is None


@pytest.mark.parametrize("word", ["", " ", "!"])
def test_a_word_needs_letters(word: str) -> None:
    with pytest.raises(ValueError, match="without letters"):
        words_for(["stopp", word], Keyword.STOP)


@given(
    word=st.sampled_from(["stop", "stopall", "optout", "unsubscribe", "end", "start", "yes", "help"]),
    data=st.data(),
)
def test_a_keyword_is_recognised_in_any_spelling(word: str, data: st.DataObject) -> None:
    noise = st.text(st.characters(categories=["P", "S", "Z", "Cf"]) | st.just("\ufe0f"), max_size=2)
    spelling = "".join(data.draw(noise) + data.draw(st.sampled_from([char, char.upper()])) for char in word)

    assert keyword_of(spelling + data.draw(noise)) is keyword_of(word)
