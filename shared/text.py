"""The characters that a text may contain, and functions that replace all others."""

import re
from collections.abc import Iterable
from unicodedata import category, normalize

_CONTROLS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
_SURROGATES = r"\ud800-\udfff"
_BREAKS = r"\t\n\r"

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+"
_MESSAGE_ID = re.compile(rf"\s*<?(?P<id>{_ATOM}@(?:{_ATOM}|\[[A-Za-z0-9.:-]+\]))>?\s*")
_ID_IN_BRACKETS = re.compile(r"\s*<(?P<id>[A-Za-z0-9!#$%&'*+/=?^_`{|}~.@:\[\]-]+)>\s*")
_MAX_MESSAGE_ID = 255
_REFERENCE = re.compile(r"<[^<>]*>|[^\s<>]+")
_MAX_REFERENCES = 900
"""Characters, so that the header fits into a line (RFC 5322, 2.1.1)."""

# Lone surrogates are not characters, and cannot be written as UTF-8.
NOT_TEXT = re.compile(f"[{_CONTROLS}{_SURROGATES}]")
NOT_A_LINE = re.compile(f"[{_CONTROLS}{_SURROGATES}{_BREAKS}]")

# Letters and marks that have no appearance: fillers, joiners, and variation selectors, as of an emoji.
_INVISIBLE = re.compile(
    r"[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)

TEXT_PATTERN = f"^[^{_CONTROLS}]*$"
LINE_PATTERN = f"^[^{_CONTROLS}{_BREAKS}]*$"


def letters_of(text: str) -> str:
    """Return the letters and digits of a text, to compare words whatever their case, form and punctuation."""
    # Some symbols are a space and a mark in the normal form, so they are removed before as well.
    return _only_letters(normalize("NFKC", _only_letters(_INVISIBLE.sub("", text))).casefold())


def _only_letters(text: str) -> str:
    return "".join(char for char in text if char.isalnum() or category(char) in {"Mn", "Mc"})


def clean_text(text: str) -> str:
    """Replace control characters and lone surrogates."""
    return NOT_TEXT.sub("\ufffd", text)


def single_line(text: str, *, limit: int) -> str:
    """Return a cleaned text on a single line, cut to `limit` characters."""
    return " ".join(clean_text(text[: limit * 2]).split())[:limit]


def message_id_of(text: str | None) -> str | None:
    """Return a Message-ID in angle brackets (RFC 5322, 3.6.4), or None if the text is not one.

    In angle brackets, it need not have exactly one @, since some mail programs create such ids. Only the
    characters that every mail server accepts are allowed, and at most 255 of them.
    """
    found = _MESSAGE_ID.fullmatch(text or "") or _ID_IN_BRACKETS.fullmatch(text or "")
    return f"<{found['id']}>" if found and len(found["id"]) <= _MAX_MESSAGE_ID else None


def references_of(references: str | None, in_reply_to: str | None) -> list[str]:
    """Return the Message-IDs of the e-mails before one in its thread, oldest first (RFC 5322, 3.6.4).

    Args:
        references: its header References.
        in_reply_to: its header In-Reply-To, which counts if there are no References and it names one e-mail.
    """
    ids = _message_ids(references)
    if not ids and len(parents := _message_ids(in_reply_to)) == 1:
        ids = parents
    return fit_references(ids)


def fit_references(ids: Iterable[str]) -> list[str]:
    """Return the Message-IDs that fit into a header: the first one, and as many of the last as possible."""
    distinct = [*dict.fromkeys(reversed([*ids]))][::-1]
    room = _MAX_REFERENCES - len("".join(distinct[:1]))
    last: list[str] = []
    for each in reversed(distinct[1:]):
        room -= len(each) + 1
        if room < 0:
            break
        last.append(each)
    return [*distinct[:1], *reversed(last)]


def _message_ids(header: str | None) -> list[str]:
    return [id_ for each in _REFERENCE.findall(header or "") if (id_ := message_id_of(each))]
