"""Pages of a list, in Twilio's format."""

from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from mock_providers.ledger import AcceptedMessage
from mock_providers.twilio.errors import TwilioError

PAGE_SIZE, MAX_PAGE_SIZE = 50, 1000


def paginate(
    query: Mapping[str, str], messages: Sequence[AcceptedMessage], path: str
) -> tuple[Sequence[AcceptedMessage], dict[str, object]]:
    """Return the messages of the page that a query asks for, and the fields that describe the page.

    Raises:
        TwilioError: The query is not valid.
    """
    number, size = _integer(query, "Page", 0), min(_integer(query, "PageSize", PAGE_SIZE), MAX_PAGE_SIZE) or 1
    # A page token names the first message of the list, so that newer messages do not shift the pages.
    tokens = [f"PA{message.id}" for message in messages]
    token = query.get("PageToken", tokens[0] if tokens else "")
    start = (tokens.index(token) if token in tokens else 0) + number * size
    found = messages[start : start + size]

    def uri(page: int) -> str:
        anchor = {"PageToken": token} if page else {}
        others = {name: value for name, value in query.items() if name != "PageToken"}
        return f"{path}?{urlencode({**others, 'PageSize': size, 'Page': page, **anchor})}"

    return found, {
        "page": number,
        "page_size": size,
        "start": number * size,
        "end": number * size + max(len(found) - 1, 0),
        "uri": uri(number),
        "first_page_uri": uri(0),
        "previous_page_uri": uri(number - 1) if number else None,
        "next_page_uri": uri(number + 1) if start + size < len(messages) else None,
    }


def _integer(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, str(default))
    if not text.isdecimal():
        raise TwilioError(20001)
    return int(text)
