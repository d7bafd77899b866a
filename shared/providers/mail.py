"""What an e-mail is made of, for providers that want its parts: plain functions of a message."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

from shared.addresses import key_of
from shared.events import Message
from shared.unsubscribe import Subscription

_LONGEST_SUBJECT = 78
"""Characters: what fits into a line (RFC 5322, 2.1.1)."""

_TAG = re.compile(
    r"<(?:!doctype html|/?(?:a|b|blockquote|body|br|code|div|em|font|h[1-6]|head|hr|html|i|img|li|ol|p|pre|"
    r"small|span|strong|style|table|tbody|td|th|tr|u|ul)(?:\s[^<>]*|\s*/)?)>",
    re.IGNORECASE,
)
_BLOCKS = {
    *("address", "article", "blockquote", "body", "br", "div", "dl", "dt", "footer", "h1", "h2", "h3", "h4"),
    *("h5", "h6", "header", "hr", "li", "ol", "p", "pre", "section", "table", "tr", "ul"),
}
_UNSEEN = {"script", "style", "title"}


def is_html(body: str) -> bool:
    """Tell whether a body is HTML: it has a tag that is one, unlike `<ann@example.com>` or `1 < 2`."""
    return _TAG.search(body) is not None


def text_of(body: str) -> str:
    """Return a body as plain text: what a reader of the HTML would see, with the addresses of links."""
    if not is_html(body):
        return body
    walker = _Walker()
    walker.feed(body)
    walker.close()
    lines = (" ".join(line.split()) for line in "".join(walker.text).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def parts_of(message: Message) -> list[tuple[str, str]]:
    """Return the bodies of a message with their media types, the plainest first."""
    # An e-mail of attachments alone still has to have a text, of one character at least.
    parts = [("text/plain", text_of(message.body) or " ")]
    if is_html(message.body):
        parts.append(("text/html", message.body))
    return parts


def subject_of(message: Message) -> str:
    """Return the subject, or the beginning of the text where there is none."""
    subject = " ".join((message.subject or "").split())
    if subject:
        return subject
    line = next((line for line in text_of(message.body).splitlines() if line.strip()), "(no subject)")
    line = " ".join(line.split())
    if len(line) <= _LONGEST_SUBJECT:
        return line
    kept = line[: _LONGEST_SUBJECT - 1]
    return f"{kept.rpartition(' ')[0] or kept}…"


def threading_of(message: Message) -> dict[str, str]:
    """Make the headers by which mail programs put the messages of a conversation together (RFC 5322, 3.6.4).

    All of them refer to one Message-ID that is computed from the conversation and that no message has, so
    that nobody needs to know the messages before.
    """
    domain = message.from_.rpartition("@")[2]
    references = [f"<{message.conversation_key}@{domain}>"]
    headers = {"Message-ID": f"<{message.id}@{domain}>"}
    if message.in_reply_to:
        parent = f"<{''.join(message.in_reply_to.split()).strip('<>')}>"
        headers["In-Reply-To"] = parent
        references.append(parent)
    return {**headers, "References": " ".join(references)}


@dataclass(frozen=True, slots=True)
class UnsubscribeLinks:
    """The links by which a recipient unsubscribes; they lead to the gateway at `base_url`."""

    base_url: str
    secret: str = field(repr=False)

    def headers_of(self, message: Message) -> dict[str, str]:
        """Make the headers by which mail programs offer that with one click (RFC 8058)."""
        channel = message.channel
        subscription = Subscription(channel, key_of(message.from_, channel), key_of(message.to, channel))
        url = f"{self.base_url.rstrip('/')}/unsubscribe/{subscription.sign(self.secret)}"
        return {
            "List-Unsubscribe": f"<{url}>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        }


class _Walker(HTMLParser):
    """Collects the text that is to be seen."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text: list[str] = []
        self._unseen = 0
        self._links: list[tuple[str, int]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag in _UNSEEN:
            self._unseen += 1
        elif tag in _BLOCKS:
            self.text.append("\n- " if tag == "li" else "\n")
        elif tag == "img":
            self.text.append(attributes.get("alt") or "")
        elif tag == "a":
            self._links.append((attributes.get("href") or "", len(self.text)))

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNSEEN:
            self._unseen = max(self._unseen - 1, 0)
        elif tag in _BLOCKS:
            self.text.append("\n")
        elif tag in {"td", "th"}:
            self.text.append(" ")
        elif tag == "a" and self._links:
            url, start = self._links.pop()
            if url.startswith(("http:", "https:")) and url not in "".join(self.text[start:]):
                self.text.append(f" ({url})")

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.text.append(re.sub(r"\s+", " ", data))
