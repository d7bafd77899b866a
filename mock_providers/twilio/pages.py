"""Pages of a list, as Twilio cuts them."""

from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from mock_providers.ledger import AcceptedMessage
from mock_providers.twilio.errors import RefusedError

PAGE_SIZE, MAX_PAGE_SIZE = 50, 1000


def page_of(
    query: Mapping[str, str], messages: Sequence[AcceptedMessage], path: str
) -> tuple[Sequence[AcceptedMessage], dict[str, object]]:
    """The messages of the page that a query asks for, and where that page is among the others.

    Raises:
        RefusedError: The query is no good.
    """
    number, size = _whole(query, "Page", 0), min(_whole(query, "PageSize", PAGE_SIZE), MAX_PAGE_SIZE) or 1
    # A token names the list's first message, so that what comes after it doesn't shift the pages.
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


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, str(default))
    if not text.isdecimal():
        raise RefusedError(20001)
    return int(text)
