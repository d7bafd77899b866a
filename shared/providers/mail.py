"""The parts of an e-mail, for providers that expect them separately: pure functions of a message."""

import re
from dataclasses import dataclass, field

from email_validator import validate_email

from shared.message import Message
from shared.providers.html import visible_text
from shared.text import fit_references, message_id_of
from shared.unsubscribe import Subscription

_MAX_SUBJECT = 78
"""Characters that fit into a line (RFC 5322, 2.1.1)."""

_TAG = re.compile(
    r"<(?:!doctype html|/?(?:a|b|blockquote|body|br|code|div|em|font|h[1-6]|head|hr|html|i|img|li|ol|p|pre|"
    r"small|span|strong|style|table|tbody|td|th|tr|u|ul)(?:\s[^<>]*+|\s*+/)?+)>",
    re.IGNORECASE,
)


def is_html(body: str) -> bool:
    """Return whether a body is HTML: it has an HTML tag, unlike `<ann@example.com>` or `1 < 2`."""
    return _TAG.search(body) is not None


def text_of(body: str) -> str:
    """Return a body as plain text: the text that a reader of the HTML sees, with the addresses of links."""
    return visible_text(body) if is_html(body) else body


def parts_of(message: Message) -> list[tuple[str, str]]:
    """Return the bodies of a message with their media types, the plainest first."""
    # SendGrid requires a text of at least one character, even if there are attachments.
    parts = [("text/plain", _text_part(message) or " ")]
    if _has_html(message):
        parts.append(("text/html", message.body))
    return parts


def _has_html(message: Message) -> bool:
    """Return whether the body is HTML, as declared or else as it appears."""
    if not message.body.strip():
        return False
    if message.body_type is not None:
        return message.body_type == "html"
    return bool(message.text) or is_html(message.body)


def _text_part(message: Message) -> str:
    return message.text or (visible_text(message.body) if _has_html(message) else message.body)


def ascii_address(address: str) -> str:
    """Return an address with its domain in A-labels (IDNA 2008), which all mail servers accept."""
    local, _, domain = address.rpartition("@")
    if domain.isascii():
        return address
    email = validate_email(f"postmaster@{domain}", check_deliverability=False, test_environment=True)
    return f"{local}@{email.ascii_domain}"


def subject_of(message: Message) -> str:
    """Return the subject, or the beginning of the text if there is none."""
    subject = " ".join((message.subject or "").split())
    if subject:
        return subject
    line = next((line for line in _text_part(message).splitlines() if line.strip()), "(no subject)")
    line = " ".join(line.split())
    if len(line) <= _MAX_SUBJECT:
        return line
    kept = line[: _MAX_SUBJECT - 1]
    return f"{kept.rpartition(' ')[0] or kept}…"


def threading_of(message: Message) -> dict[str, str]:
    """Return the headers by which mail clients group the messages of a conversation (RFC 5322, 3.6.4).

    A reply refers to the e-mails of its thread. Other messages refer to a Message-ID that is computed from
    the conversation and belongs to no message, so that they are grouped without knowing the earlier ones.
    """
    domain = ascii_address(message.from_).rpartition("@")[2]
    headers = {"Message-ID": f"<{message.id}@{domain}>"}
    references = message.references
    if parent := message_id_of(message.in_reply_to):
        headers["In-Reply-To"] = parent
        references = fit_references([*references, parent])
    root = f"<{message.conversation_key}@{domain}>"
    return {**headers, "References": " ".join(references or [root])}


@dataclass(frozen=True, slots=True)
class UnsubscribeLinks:
    """The links by which a recipient unsubscribes; they point to the gateway at `base_url`."""

    base_url: str
    secret: str = field(repr=False)

    def headers_of(self, message: Message) -> dict[str, str]:
        """Return the headers with which mail clients offer one-click unsubscribing (RFC 8058)."""
        subscription = Subscription(message.channel, message.from_key, message.to_key)
        url = f"{self.base_url.rstrip('/')}/unsubscribe/{subscription.sign(self.secret)}"
        return {
            "List-Unsubscribe": f"<{url}>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        }
