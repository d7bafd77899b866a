"""The keywords with which people opt out of text messages, and back in."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType

from shared.text import letters_of


class Keyword(StrEnum):
    """A request that a text message makes.

    Attributes:
        YES: opts in a recipient who has opted out; from anybody else, it is an ordinary reply.
        HELP: changes nothing.
    """

    STOP = "stop"
    START = "start"
    YES = "yes"
    HELP = "help"


Words = Mapping[str, Keyword]
"""Keywords by their letters, as `letters_of` returns them."""

_NONE: Words = MappingProxyType({})


def words_for(words: Iterable[str], keyword: Keyword) -> Words:
    """Return words that stand for a keyword, in any language.

    Raises:
        ValueError: a word has no letters.
    """
    found = {letters_of(word): keyword for word in words}
    if "" in found:
        raise ValueError("contains a word without letters")
    return found


_MAX_LENGTH = 300
"""Characters of a text that may consist of a keyword, and signs that do not count."""

_KEYWORDS = {
    **words_for(
        ("stop", "stop all", "unsubscribe", "cancel", "end", "quit", "revoke", "opt out"), Keyword.STOP
    ),
    **words_for(("start", "unstop"), Keyword.START),
    **words_for(("yes",), Keyword.YES),
    **words_for(("help", "info"), Keyword.HELP),
}


def keyword_of(text: str, own: Words = _NONE) -> Keyword | None:
    """Return the keyword that a text consists of, ignoring its case, spaces and punctuation.

    Args:
        text: a message.
        own: further words that stand for keywords.
    """
    if len(text) > _MAX_LENGTH:
        return None
    letters = letters_of(text)
    return _KEYWORDS.get(letters) or own.get(letters)
