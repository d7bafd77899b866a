"""The keywords with which people opt out of text messages, and back in."""

from enum import StrEnum


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


_KEYWORDS = {
    **dict.fromkeys(
        ("STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT"), Keyword.STOP
    ),
    **dict.fromkeys(("START", "UNSTOP"), Keyword.START),
    "YES": Keyword.YES,
    **dict.fromkeys(("HELP", "INFO"), Keyword.HELP),
}


def keyword_of(text: str) -> Keyword | None:
    """Return the keyword that a text consists of, ignoring its case and spaces or punctuation around it."""
    first = next((index for index, char in enumerate(text) if char.isalnum()), 0)
    last = next((index for index in range(len(text), 0, -1) if text[index - 1].isalnum()), 0)
    return _KEYWORDS.get(text[first:last].upper())
