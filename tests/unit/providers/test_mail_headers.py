"""Headers of e-mails as they come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.providers.mail_headers import (
    Headers,
    author_of,
    decode_words,
    mailboxes,
    message_id_in,
    name_of,
)

texts = st.text(st.sampled_from('ab@.<>()[]",;:\\ =?\n\té'), max_size=60)


def test_headers_are_unfolded_and_other_lines_left_out() -> None:
    headers = Headers.parse(
        "From x@example.com Mon Jan  5\r\nSubject: a\r\n  b\r\nno header\nTO : x\nto:y\r\nX-Empty:\n"
    )

    assert headers.fields == (("subject", "a  b"), ("to", "x"), ("to", "y"), ("x-empty", ""))
    assert headers.all("to") == ["x", "y"]
    assert (headers.first("to"), headers.first("cc")) == ("x", "")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("=?UTF-8?B?5Lit5paHLnBkZg==?=", "中文.pdf"),
        ("=?utf-8?q?Doe=2C_Ann?= <ann@example.com>", "Doe, Ann <ann@example.com>"),
        ("=?utf-8?b?4pw=?= =?UTF-8?b?hQ==?= x", "✅ x"),
        ("=?iso-8859-1?q?=E9?=  =?utf-8?q?=C3=A9?=", "éé"),
        ("=?iso-8859-1?q?=E9?= and =?utf-8?q?=C3=A9?=", "é and é"),
        ("=?gb2312?B?1tDOxA?=", "中文"),
        ("=?utf-8*en?Q?a_b?=", "a b"),
        ("=?iso-2022-jp?B?GyRCJUYlOSVIGyhC?=", "テスト"),
        ("=?unknown?q?a?= b", "a b"),
        ("=?utf-8?B?a?= b", "=?utf-8?B?a?= b"),
        ("=?utf-8?x?a?= =? ?=", "=?utf-8?x?a?= =? ?="),
        ("plain", "plain"),
    ],
)
def test_encoded_words(written: str, read: str) -> None:
    assert decode_words(written).text == read


@pytest.mark.parametrize(
    ("written", "addresses"),
    [
        ("ann@example.com", ["ann@example.com"]),
        ("Ann <ann@example.com>, ben@example.com;cat@example.com", ["ann@example.com", "ben@example.com",
                                                                     "cat@example.com"]),
        ('"Doe, Ann (x)" <ann@example.com>', ["ann@example.com"]),
        ('"Doe \\", Ann" <ann@example.com>', ["ann@example.com"]),
        ("Ann (a (nested) <x@y.z>) <ann (c) @ example.com> more", ["ann@example.com"]),
        ("Ann <ann . doe @ example(c). \t com>", ["ann.doe@example.com"]),
        ("Team: ann@example.com, Ben <ben@example.com>;", ["ann@example.com", "ben@example.com"]),
        ("undisclosed-recipients:;", []),
        ("<@a.example,@b.example:ann@example.com>", ["ann@example.com"]),
        ("mailto:ann@example.com?subject=x", ["ann@example.com"]),
        ('"ann@old.example" <ann@example.com>', ["ann@example.com"]),
        ('"Ann <ann@example.com>', ["ann@example.com"]),
        ("Ann (ann@example.com", ["ann@example.com"]),
        ("Ann ann@example.com", ["ann@example.com"]),
        ("<<ann@example.com>>", ["ann@example.com"]),
        ("ann@[IPv6:2001:db8::1]", ["ann@[IPv6:2001:db8::1]"]),
        ('"a@b c"@example.com', ['"a@b c"@example.com']),
        ("MAILER-DAEMON", ["MAILER-DAEMON"]),
        ("", []),
    ],
)  # fmt: skip
def test_mailboxes(written: str, addresses: list[str]) -> None:
    assert mailboxes(written) == addresses


def test_the_first_author_counts_or_else_the_sender() -> None:
    assert author_of(["Ann @ Example, Inc. <ann@example.com>"], []) == "ann@example.com"
    assert author_of(["Ann", "Ann <ann@example.com>"], ["ben@example.com"]) == "ann@example.com"
    assert author_of(["MAILER-DAEMON"], ["ben@example.com"]) == "ben@example.com"
    assert author_of(["MAILER-DAEMON"], []) == "MAILER-DAEMON"
    assert author_of([], []) == ""


@given(st.from_regex(r"[a-z]{1,5}(\.{0,2}[a-z0-9_]){0,5}@[a-z]{1,5}(\.[a-z_]{1,5}){0,3}", fullmatch=True))
def test_an_address_in_brackets_is_found(address: str) -> None:
    for before in ("", "Ann ", "Doe, Ann ", '"Doe, Ann" ', "(x) ", "Ann @ Home "):
        for after in ("", " (via web)", ",", ";", ", Ben <ben@example.com>", " x"):
            assert author_of([f"{before}<{address}>{after}"], []) == address


@given(texts)
def test_any_text_is_tolerated(text: str) -> None:
    for mailbox in (*mailboxes(text), author_of([text], [text])):
        assert mailbox == mailbox.strip()
    decode_words(text)
    message_id_in(text)
    Headers.parse(f"a:{text}").parameters("a").get_params(header="a")


@given(
    st.text(max_size=20), st.sampled_from(["utf-8", "iso-8859-1", "iso-2022-jp", "?"]), st.sampled_from("bq")
)
def test_any_encoded_word_is_tolerated(text: str, charset: str, encoding: str) -> None:
    decode_words(f"=?{charset}?{encoding}?{text}?=").text.encode(errors="surrogatepass")


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("ann@example.com", None),
        ("<ann@example.com>", None),
        ("Ann Doe <ann@example.com>", "Ann Doe"),
        ("Ann (at work) Doe <ann@example.com>", "Ann Doe"),
        (r'"Doe, \"Ann\"" <ann@example.com>', 'Doe, "Ann"'),
        ("=?utf-8?q?J=C3=B6rg?= <ann@example.com>", "Jörg"),
        ("Ben <ben@example.com>, 李雷 <ann@example.com>", "李雷"),
        ("Ben <ben@example.com>", None),
    ],
)
def test_the_name_beside_an_address(header: str, name: str | None) -> None:
    assert name_of("ann@example.com", [header]) == name
