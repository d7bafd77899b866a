from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.ids import ConversationKey, MessageId
from shared.providers.mail import ascii_address, is_html, parts_of, subject_of, text_of, threading_of
from shared.text import message_id_of, references_of
from tests import messages

ROOT = "<00000000-0000-0000-0000-000000000002@example.com>"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("Hello", False),
        ("1 < 2 and 3 > 2", False),
        ("Write to <ann@example.com>", False),
        ("<https://example.com>", False),
        ("<3", False),
        ("<b>Hi</b>", True),
        ("Hi<br/>you", True),
        ('<P CLASS="x">Hi', True),
        ("<!DOCTYPE html><html>", True),
        ('<a href="https://example.com">x</a>', True),
    ],
)
def test_a_body_with_a_tag_is_html(body: str, expected: bool) -> None:  # noqa: FBT001 - a column of the table
    assert is_html(body) is expected


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("Plain\n\n\n\n text ", "Plain\n\n\n\n text "),
        ("<p>One</p><p>Two</p>", "One\n\nTwo"),
        ("<div>One<br>Two</div>", "One\nTwo"),
        ("<b>a</b>\n  <i>b</i>", "a b"),
        ("<ul><li>One</li><li>Two</li></ul>", "- One\n\n- Two"),
        ("<html><head><title>T</title><style>p{}</style></head><p>Hi", "Hi"),
        ("<script>alert('x')</script><p>Hi &amp; &lt;bye&gt;</p>", "Hi & <bye>"),
        ('<a href="https://example.com/?a=1">here</a>', "here (https://example.com/?a=1)"),
        ('<a href="https://example.com">https://example.com</a>', "https://example.com"),
        ('<a href="javascript:x()">here</a>', "here"),
        ('<img alt="A cat" src="x"> <p></p>', "A cat"),
        ("<tr><td>1</td><td>2</td></tr>", "1 2"),
        ("<p></a></td></script>Hi</p>", "Hi"),
    ],
)
def test_the_text_is_the_visible_part_of_the_html(body: str, text: str) -> None:
    assert text_of(body) == text


@pytest.mark.parametrize(
    ("subject", "body", "expected"),
    [
        ("Greetings", "Hello", "Greetings"),
        ("a\r\nBcc: b@c.d", "Hello", "a Bcc: b@c.d"),
        ("  ", "Hello", "Hello"),
        (None, "\n \nHello,\nAnn", "Hello,"),
        (None, "<h1>Big</h1><p>news</p>", "Big"),
        (None, "", "(no subject)"),
        (None, "<img src='x'>", "(no subject)"),
        (None, "word " * 20, "word " * 14 + "word…"),
        (None, "x" * 100, "x" * 77 + "…"),
    ],
)
def test_the_subject_is_the_beginning_of_the_text_if_none_is_given(
    subject: str | None, body: str, expected: str
) -> None:
    assert subject_of(messages.email(subject=subject, body=body)) == expected


@given(st.text(), st.none() | st.text())
def test_any_text_becomes_an_email(body: str, subject: str | None) -> None:
    message = messages.email(body=body, subject=subject)
    assert 0 < len(subject_of(message).splitlines()) <= 1
    assert all(text for _, text in parts_of(message))


@given(
    st.lists(st.sampled_from(["<p>", "</a>", "<a href=", "<script>", "<b", "&#0;", "x", "<!--", "]]>", "'"]))
)
def test_any_html_has_a_plain_text(parts: list[str]) -> None:
    text_of("<br>" + "".join(parts))


@pytest.mark.parametrize(
    ("in_reply_to", "more", "references"),
    [
        (None, {}, ROOT),
        ("<1@b.c>", {"In-Reply-To": "<1@b.c>"}, "<1@b.c>"),
        ("1@b.c", {"In-Reply-To": "<1@b.c>"}, "<1@b.c>"),
        (
            " <a.b+c=d$1@[192.0.2.1]>\n",
            {"In-Reply-To": "<a.b+c=d$1@[192.0.2.1]>"},
            "<a.b+c=d$1@[192.0.2.1]>",
        ),
        ("<1@b.c>\r\nBcc: x", {}, ROOT),
        ("<1@b.c> <2@b.c>", {}, ROOT),
        ("<1@b\0.c>", {}, ROOT),
        ("<1é@b.c>", {}, ROOT),
        ('<"1"@b.c>', {}, ROOT),
        ("<1>", {"In-Reply-To": "<1>"}, "<1>"),
        ("<1@b@c>", {"In-Reply-To": "<1@b@c>"}, "<1@b@c>"),
        ("1", {}, ROOT),
        ("<>", {}, ROOT),
        (f"<{'1' * 252}@b.c>", {}, ROOT),
        ("<" * 200_000, {}, ROOT),
    ],
)
def test_an_email_refers_to_its_parent_or_else_to_its_conversation(
    in_reply_to: str | None, more: dict[str, str], references: str
) -> None:
    message = messages.email(id=MessageId(UUID(int=1)), in_reply_to=in_reply_to).model_copy(
        update={"conversation_key": ConversationKey(UUID(int=2))}
    )
    assert threading_of(message) == {
        "Message-ID": "<00000000-0000-0000-0000-000000000001@example.com>",
        "References": references,
        **more,
    }


def test_a_reply_refers_to_all_emails_of_its_thread() -> None:
    message = messages.email(references=["<1@b.c>", "<2@b.c>"], in_reply_to="<2@b.c>")
    assert threading_of(message)["References"] == "<1@b.c> <2@b.c>"


def test_the_references_fit_into_a_line() -> None:
    ids = [f"<{number}@{'x' * 60}.example>" for number in range(100)]
    references = threading_of(messages.email(references=ids, in_reply_to=ids[-1]))["References"]
    assert len(f"References: {references}") <= 998
    first, *last = references.split()
    assert first == ids[0]
    assert last == ids[-len(last) :]
    assert len(last) > 10


@given(
    st.text(alphabet="<>@ab1.()\r\n\t é", max_size=60), st.text(alphabet="<>@ab1. ", max_size=20) | st.none()
)
def test_any_header_becomes_message_ids(references: str, in_reply_to: str | None) -> None:
    assert all(message_id_of(id_) == id_ for id_ in references_of(references, in_reply_to))


@pytest.mark.parametrize(
    ("references", "in_reply_to", "ids"),
    [
        ("<1@b.c> <2@b.c>", "<2@b.c>", ["<1@b.c>", "<2@b.c>"]),
        ("<1@b.c><2@b.c>\r\n\t<3@b.c> (a comment)", None, ["<1@b.c>", "<2@b.c>", "<3@b.c>"]),
        ("1@b.c two <> <3@b.c>", None, ["<1@b.c>", "<3@b.c>"]),
        ("<1> <2@b@c>", None, ["<1>", "<2@b@c>"]),
        (None, "<1@b.c>", ["<1@b.c>"]),
        ("", "<1@b.c> <2@b.c>", []),
        ("<2@b.c> <1@b.c> <2@b.c>", None, ["<1@b.c>", "<2@b.c>"]),
        (None, None, []),
    ],
)
def test_the_references_of_an_email_are_those_of_its_headers(
    references: str | None, in_reply_to: str | None, ids: list[str]
) -> None:
    assert references_of(references, in_reply_to) == ids


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"body": "1 <b> 2", "body_type": "text"}, [("text/plain", "1 <b> 2")]),
        ({"body": "Hi", "body_type": "html"}, [("text/plain", "Hi"), ("text/html", "Hi")]),
        ({"body": "<p>Hi</p>", "text": "Hello"}, [("text/plain", "Hello"), ("text/html", "<p>Hi</p>")]),
        ({"body": "Hi", "text": "Hello"}, [("text/plain", "Hello"), ("text/html", "Hi")]),
        ({"body": " ", "body_type": "html"}, [("text/plain", " ")]),
        ({"body": "", "text": "Hello"}, [("text/plain", "Hello")]),
    ],
)
def test_html_is_declared_or_recognised(fields: dict[str, str], parts: list[tuple[str, str]]) -> None:
    assert parts_of(messages.email(**fields)) == parts


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("ann@example.com", "ann@example.com"),
        ("info@bücher.example", "info@xn--bcher-kva.example"),
        ("info@straße.example", "info@xn--strae-oqa.example"),
        ("info@例え.example", "info@xn--r8jz45g.example"),
    ],
)
def test_domains_are_sent_in_ascii(address: str, expected: str) -> None:
    assert ascii_address(address) == expected
    assert threading_of(messages.email(from_=address))["Message-ID"].endswith(
        expected.partition("@")[2] + ">"
    )


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("<p>One<a href=", "One"),
        ("<p>One<!-- two", "One"),
        ("<p>One<!---->Two<!-->Three<!-- > -->Four", "OneTwoThreeFour"),
        ("<p>One<script>two</script three>Four", "OneFour"),
        ("<p>One<style>two", "One"),
        ("<p>One<![if !mso]>Two<![endif]><![other[>Three", "OneTwoThree"),
        ("<p>1 < 2, <3, a<b", "1 < 2, <3, a"),
        (
            '<p><a title="href=http://x.com" HREF = \'https://example.com/?a=1&amp;b=">"\'>here</a>',
            'here (https://example.com/?a=1&b=">")',
        ),
        (
            "<p><a href=https://example.com/a/>one<a href=https://example.com/b>two",
            "one (https://example.com/a/)two",
        ),
        ('<p title=">">One', "One"),
        ("<p it's>One", "One"),
        ("<p>&#65;&#x42;&nbsp;&#99999999999;" + "&#" + "9" * 10_000, "AB \ufffd\ufffd"),
    ],
)
def test_html_that_is_not_valid_is_read_as_browsers_do(body: str, text: str) -> None:
    assert text_of(body) == text
