"""The words by which people opt out of text messages, and in again."""

from enum import StrEnum


class Keyword(StrEnum):
    """What a text asks for.

    Attributes:
        YES: opts in who has opted out; from anybody else it is an answer to something.
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
    """Return the keyword that a text is, in any case and with spaces or punctuation around it."""
    first = next((index for index, char in enumerate(text) if char.isalnum()), 0)
    last = next((index for index in range(len(text), 0, -1) if text[index - 1].isalnum()), 0)
    return _KEYWORDS.get(text[first:last].upper())
